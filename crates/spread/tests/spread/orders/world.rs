//! Two members, one key whose home changes, and what was seen outside of both.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use onlyonce_conformance::{block_on, id};
use onlyonce_core::{
    Claim, ClaimId, Command, Fence, Fingerprint, Floor, Holder, KeyId, Next, Outcome, Phase,
    Policy, Record, Reply, Secret, State, Timestamp, decide,
};
use onlyonce_spread::{Given, Seat, Spread};
use onlyonce_store::transaction::MARK;
use onlyonce_store::{MemoryStore, Store as _, StoreError, Swap};

use super::gate::{Gated, Told, digest};
use super::schedule::Sight;
use crate::bench::{map, steady};

const BEGIN: u64 = 1_764_000_000_000;
/// When the key was made.
const KEY_TIME: Timestamp = Timestamp::from_millis(BEGIN);

/// What a member holds at the beginning.
#[derive(Clone, Copy)]
pub(crate) enum At {
    Released,
    /// What was there before it was released.
    ClaimedEarlier,
    /// It ran, and may be forgotten: the floor is above it.
    Forgotten,
    Forward(u64),
}

/// What was seen outside.
#[derive(Default)]
struct Outside {
    granted: Cell<u32>,
    /// What was answered and confirmed.
    answered: Cell<Option<u16>>,
    /// The largest revision that was confirmed to anybody.
    confirmed: Cell<u64>,
}

/// What must hold at the end.
#[derive(Clone, Copy)]
pub(crate) enum End {
    /// At most one was let in, and everybody finds what was confirmed last.
    GrantedOnce,
    /// The same, and what was answered is what everybody is told.
    RanOnce,
    GrantedNever,
}

pub(crate) struct World {
    pub(crate) end: End,
    stores: [Arc<MemoryStore>; 2],
    told: Arc<Told>,
    outside: Rc<Outside>,
    floor: Floor,
    key: KeyId,
    /// How many nodes there are.
    nodes: Cell<u8>,
}

impl World {
    pub(crate) fn new(records: &[(At, u32)], end: End) -> Self {
        let moves = |id: &KeyId| map("2 1,2 1").old_home(*id) == Some(1);
        let world = Self {
            end,
            stores: [Arc::default(), Arc::default()],
            told: Arc::default(),
            nodes: Cell::new(0),
            outside: Rc::default(),
            floor: Floor::at(match records {
                [(At::Forgotten, _)] => KEY_TIME.plus_millis(1),
                _ => Timestamp::default(),
            }),
            key: (0..).map(id).find(moves).unwrap(),
        };
        for (at, member) in records {
            let store = &world.stores[*member as usize - 1];
            let put = store.swap(world.key, None, Some(record(*at)));
            assert_eq!(block_on(put).unwrap(), Swap::Done);
        }
        world
    }

    /// A node that has read this map, which then is in force.
    pub(crate) fn node(&self, text: &str) -> Node {
        self.node_of(text, &[1, 2])
    }

    /// The same, which names these members.
    pub(crate) fn node_of(&self, text: &str, named: &[u32]) -> Node {
        let map = map(text);
        for (own, store) in (1..).zip(&self.stores) {
            let before = block_on(store.get(MARK)).unwrap().map(|record| record.revision);
            if let Some(before) = before {
                block_on(store.swap(MARK, Some(before), None)).unwrap();
            }
            let seat = Seat::take(&**store, own, &map, Fence::new(7), Timestamp::default());
            block_on(seat).unwrap().unwrap();
        }
        let given = named.iter().map(|own| Given {
            name: own.to_string(),
            store: Arc::new(Gated {
                inner: Arc::clone(&self.stores[*own as usize - 1]),
                told: Arc::clone(&self.told),
            }),
            secret: Secret::from_bytes([7; 32]),
        });
        let spread = block_on(Spread::open(given.collect(), steady(0))).unwrap();
        assert_eq!(spread.map(), map);
        let outside = Rc::clone(&self.outside);
        let number = self.nodes.get() + 1;
        self.nodes.set(number);
        let time = Rc::new(Cell::new(u64::from(number) * 1_000));
        Node { spread, outside, floor: self.floor, key: self.key, number, time }
    }

    /// Ends whatever move is in force, and reads the key as everybody will from then on.
    fn settled(&self) -> Option<Record> {
        self.told.is_over.store(true, Ordering::Relaxed);
        let newest = block_on(Seat::read(&*self.stores[0])).unwrap().unwrap().map;
        let node = self.node(&newest.to_string());
        let now = Timestamp::from_millis(BEGIN + 1_000_000);
        block_on(async {
            loop {
                let pass = node.spread.pass(newest.version(), &|_| ()).await.unwrap();
                if pass.moved == 0 {
                    node.spread.settle(&pass, now).await.unwrap();
                    break;
                }
            }
            let found = node.spread.get(self.key).await.unwrap();
            let cleaned = node.spread.clean(&|_| ()).await.unwrap();
            assert_eq!(cleaned.strays, 0, "a record that nobody finds");
            assert_eq!(node.spread.get(self.key).await.unwrap(), found);
            found
        })
    }
}

impl Sight for World {
    fn turn(&self, task: usize) {
        self.told.turn.store(task, Ordering::Relaxed);
    }

    fn digest(&self) -> u64 {
        let stands = |store: &Arc<MemoryStore>| block_on(store.get(self.key)).unwrap();
        let stand = format!("{:?}", self.stores.each_ref().map(stands));
        let Outside { granted, answered, confirmed } = &*self.outside;
        let outside = (granted.get(), answered.get(), confirmed.get());
        digest(&(stand, *self.told.tasks.lock().unwrap(), outside))
    }

    fn check(self) {
        let Outside { granted, answered, confirmed } = &*self.outside;
        let (granted, answered, confirmed) = (granted.get(), answered.get(), confirmed.get());
        let found = self.settled();
        let revision = found.as_ref().map_or(0, |record| record.revision.get());
        assert!(granted <= 1, "{granted} were let in");
        assert!(confirmed <= revision, "what was confirmed is lost");
        match self.end {
            End::GrantedOnce => {}
            End::GrantedNever => assert_eq!(granted, 0, "it ran again"),
            End::RanOnce => {
                assert_eq!(granted, 1, "nobody was let in");
                let state = found.map(|record| record.state);
                let Some(State::Completed { reply, .. }) = state else { panic!("{state:?}") };
                assert_eq!(Some(reply.status()), answered);
            }
        }
    }
}

/// A process with its map.
#[derive(Clone)]
pub(crate) struct Node {
    spread: Spread,
    outside: Rc<Outside>,
    floor: Floor,
    key: KeyId,
    number: u8,
    /// Its clock, which differs from that of other nodes.
    time: Rc<Cell<u64>>,
}

impl Node {
    /// Claims, runs, and says how it ended.
    pub(crate) async fn run(self) {
        let Ok(Outcome::Granted(fence)) = self.ask().await else { return };
        self.outside.granted.set(self.outside.granted.get() + 1);
        let status = 200 + u16::from(self.number);
        let reply = Reply::kept(status, "done");
        let told = self.act(Command::Complete { fence, reply }).await;
        // A node that does not name a member that joined cannot say it: then nobody knows.
        if told.is_ok_and(|outcome| outcome == Outcome::Done) {
            self.outside.answered.set(Some(status));
        }
    }

    /// Claims, and is heard of no more.
    pub(crate) async fn claim(self) {
        if let Ok(Outcome::Granted(_)) = self.ask().await {
            self.outside.granted.set(self.outside.granted.get() + 1);
        }
    }

    /// Carries the key, as whoever moves all of them does.
    pub(crate) async fn carry(self) {
        // Somebody else may have gone further meanwhile.
        let _ = self.spread.pass(self.spread.map().version(), &|_| ()).await;
    }

    pub(crate) async fn clean(self) {
        self.spread.clean(&|_| ()).await.unwrap();
    }

    pub(crate) async fn sweep(self) {
        self.act(Command::Sweep).await.unwrap();
    }

    /// Sees what was confirmed before it began.
    pub(crate) async fn read(self) {
        let confirmed = self.outside.confirmed.get();
        let found = self.spread.get(self.key).await.unwrap();
        let revision = found.map_or(0, |record| record.revision.get());
        assert!(confirmed <= revision, "an old record was read");
    }

    async fn ask(&self) -> Result<Outcome, StoreError> {
        self.act(claim(self.number)).await
    }

    async fn act(&self, command: Command) -> Result<Outcome, StoreError> {
        let mut current: Option<Record> = None;
        let mut is_fresh = false;
        loop {
            self.time.set(self.time.get() + 1);
            let now = Timestamp::from_millis(BEGIN + self.time.get());
            let decided = decide(now, self.floor, &policy(), current.as_ref(), &command);
            let expected = current.as_ref().map(|record| record.revision);
            let next = match decided.next {
                Next::Keep if is_fresh => return Ok(decided.outcome),
                Next::Keep => {
                    current = self.spread.get(self.key).await?;
                    is_fresh = true;
                    continue;
                }
                Next::Write(record) => Some(record),
                Next::Delete => None,
            };
            let revision = next.as_ref().map_or(0, |record| record.revision.get());
            match self.spread.swap(self.key, expected, next).await? {
                Swap::Done => {
                    let confirmed = self.outside.confirmed.get();
                    // With a deletion nothing needs to be there any more.
                    let now = if revision == 0 { 0 } else { confirmed.max(revision) };
                    self.outside.confirmed.set(now);
                    return Ok(decided.outcome);
                }
                Swap::Conflict(found) => {
                    current = found;
                    is_fresh = true;
                }
            }
        }
    }
}

fn policy() -> Policy {
    Policy { remember: std::time::Duration::ZERO, ..Policy::default() }
}

fn claim(number: u8) -> Command {
    Command::Claim(Claim {
        fingerprint: Fingerprint::new(1, [1; 32]),
        claim_id: ClaimId::from_bytes([number; 16]),
        holder: Holder::default(),
        key_time: Some(KEY_TIME),
        credential: None,
        phase: Phase::Committing,
    })
}

/// Such a record, as the core makes it.
fn record(at: At) -> Record {
    let write = |record: Option<&Record>, at: u64, command: &Command| {
        let now = Timestamp::from_millis(BEGIN + at);
        match decide(now, Floor::NONE, &policy(), record, command).next {
            Next::Write(record) => record,
            other @ (Next::Keep | Next::Delete) => panic!("{other:?}"),
        }
    };
    let claimed = write(None, 1, &claim(0));
    let fence = claimed.fence;
    match at {
        At::ClaimedEarlier => claimed,
        At::Released => write(Some(&claimed), 2, &Command::Release { fence, stranger: false }),
        At::Forgotten => {
            let reply = Reply::kept(201, "done");
            let done = write(Some(&claimed), 3, &Command::Complete { fence, reply });
            let State::Completed { reply, answered_at, .. } = &done.state else {
                panic!("{done:?}")
            };
            let state = State::Tombstone {
                answered_at: *answered_at,
                status: reply.status(),
                forget_at: KEY_TIME,
                sealed: false,
                digest: reply.digest(),
            };
            Record { state, ..done }
        }
        At::Forward(version) => forward(version),
    }
}

/// The forward of a move, as a move leaves it.
fn forward(version: u64) -> Record {
    let world = World::new(&[], End::GrantedOnce);
    let before = map(&format!("{} 1 -", version - 1));
    let node = world.node(&before.moving_to(&[1, 2]).unwrap().to_string());
    world.told.is_over.store(true, Ordering::Relaxed);
    block_on(node.act(claim(0))).unwrap();
    block_on(world.stores[0].get(world.key)).unwrap().unwrap()
}
