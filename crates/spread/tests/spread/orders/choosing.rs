//! Every order of the calls of two who choose between the same two records of a key at once, each
//! of whom may end between any two of his calls, and of a mover beside them.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::gate::{Gated, Told, digest};
use super::schedule::{Sight, Task, every_order};
use crate::bench::{map, seated, steady};
use onlyonce_conformance::{answered, block_on, claimed, id, in_doubt};
use onlyonce_core::{KeyId, Record, Revision, Secret};
use onlyonce_spread::{Given, Number, Spread};
use onlyonce_store::transaction::MARK;
use onlyonce_store::{MemoryStore, Store as _, Swap};

const MOVING: &str = "2 1,2 1";

/// What each of the two has been told: that it is chosen, or not.
type Said = Rc<[Cell<Option<bool>>; 2]>;

struct World {
    key: KeyId,
    stores: [Arc<MemoryStore>; 2],
    told: Arc<Told>,
    said: Said,
}

/// What the first one keeps, and the second one. Both are above what is there.
fn kept() -> [Record; 2] {
    [in_doubt(&claimed(1), 9), answered(&claimed(1), 12, "sold")]
}

impl World {
    /// A key with a record in each of its homes.
    fn new() -> Self {
        let key = (0..).map(id).find(|key| map(MOVING).old_home(*key) == Some(1)).unwrap();
        let stores = [(1, claimed(1)), (2, answered(&claimed(1), 2, "sold"))];
        let stores = stores.map(|(own, record): (Number, Record)| {
            let store = Arc::new(MemoryStore::new());
            for (id, record) in [(MARK, seated(own, &map(MOVING))), (key, record)] {
                assert_eq!(block_on(store.swap(id, None, Some(record))).unwrap(), Swap::Done);
            }
            store
        });
        Self { key, stores, told: Arc::default(), said: Rc::default() }
    }

    /// A process of its own.
    fn opened(&self) -> Spread {
        let given = self.stores.iter().map(|inner| {
            let gated = Gated { inner: Arc::clone(inner), told: Arc::clone(&self.told) };
            let secret = Secret::from_bytes([7; 32]);
            Given { name: "db".to_owned(), store: Arc::new(gated), secret }
        });
        block_on(Spread::open(given.collect(), steady(0))).unwrap()
    }

    /// Both have seen the same two.
    fn choice(&self, number: usize) -> impl Future<Output = ()> + use<> {
        let (key, said, spread) = (self.key, Rc::clone(&self.said), self.opened());
        let stands = self.stands();
        async move {
            let [Some(there), Some(here)] = stands else { panic!("{stands:?}") };
            let [first, second] = kept();
            let kept = if number == 0 { first } else { second };
            let chosen = spread.choose(key, &[(1, there), (2, here)], kept).await;
            said[number].set(Some(chosen.is_ok()));
        }
    }

    fn carry(&self) -> impl Future<Output = ()> + use<> {
        let spread = self.opened();
        async move { _ = spread.pass(2, &|_| ()).await }
    }

    fn stands(&self) -> [Option<Record>; 2] {
        self.stores.each_ref().map(|store| block_on(store.get(self.key)).unwrap())
    }
}

impl Sight for World {
    fn turn(&self, task: usize) {
        self.told.turn.store(task, Ordering::Relaxed);
    }

    fn digest(&self) -> u64 {
        let said = self.said.each_ref().map(Cell::get);
        digest(&(format!("{:?}", self.stands()), said, *self.told.tasks.lock().unwrap()))
    }

    fn check(self) {
        self.told.is_over.store(true, Ordering::Relaxed);
        let said = self.said.each_ref().map(Cell::get);
        assert_ne!(said, [Some(true); 2], "both are told that theirs counts");
        let chosen = said.iter().position(|said| *said == Some(true));
        let spread = self.opened();
        let both = block_on(spread.both(self.key)).unwrap();
        let found = block_on(spread.get(self.key)).unwrap().unwrap();
        let pass = block_on(spread.pass(2, &|_| ())).unwrap();
        assert_eq!(pass.moved, 0, "neither is overwritten by the other");
        match both {
            // One has ended on his way; whoever comes next sees two, and chooses.
            Some(both) => {
                assert_eq!(chosen, None);
                let [_, (_, here)] = &both;
                let revision = Revision::new(here.revision.get().max(kept()[1].revision.get()) + 1);
                let last = Record { revision: revision.unwrap(), ..in_doubt(&claimed(1), 20) };
                block_on(spread.choose(self.key, &both, last.clone())).unwrap();
                assert_eq!(block_on(spread.get(self.key)).unwrap(), Some(last));
            }
            None => {
                let number = chosen.map_or_else(|| kept().iter().position(|it| *it == found), Some);
                assert_eq!(found, kept()[number.unwrap()], "what somebody has chosen");
            }
        }
    }
}

#[test]
fn of_two_who_choose_at_once_one_is_told_that_his_counts_and_it_does() {
    let runs = every_order(|| {
        let world = World::new();
        let choices = [0, 1].map(|number| Task::steady(world.choice(number)));
        let tasks = choices.into_iter().chain([Task::mortal(world.carry())]).collect();
        (tasks, world)
    });
    assert!(1 < runs, "{runs} ends");
}

#[test]
fn a_choice_that_ends_anywhere_leaves_one_record_or_two_to_choose_between() {
    let runs = every_order(|| {
        let world = World::new();
        let choices = [0, 1].map(|number| Task::mortal(world.choice(number)));
        let tasks = choices.into_iter().chain([Task::mortal(world.carry())]).collect();
        (tasks, world)
    });
    assert!(4 < runs, "{runs} ends");
}
