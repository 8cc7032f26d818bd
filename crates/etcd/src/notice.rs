//! Notices by watches: of each key for which somebody waits, on one stream to one member.
//!
//! Who writes does nothing for it. The member tells of every change of such a key, also of one that
//! leaves somebody at work on it; whoever waits looks and goes on waiting.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use onlyonce_core::KeyId;
use onlyonce_store::{Teller, Want};
use tokio::sync::mpsc::{Sender, channel};
use tokio::time::timeout;
use tonic::{Status, Streaming};

use crate::client::Client;
use crate::error::Fault;
use crate::inner::Inner;
use crate::wire::{Op, Txn, Watch, Watched};

/// After a stream that was lost or could not be opened: at first, and at last.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// What is on its way to the member; more waits here.
const ASKS_MAX: usize = 64;
/// The watch of the store's own facts, which shows that the stream is there.
const OWN: i64 = 1;

/// Tells for as long as somebody listens.
pub(crate) async fn run(inner: Arc<Inner>, teller: Teller) {
    let mut pause = PAUSE;
    loop {
        let why = match Line::open(&inner, &teller).await {
            Ok(mut line) => match line.serve(&inner, &teller).await {
                Ok(()) => return,
                Err(why) => {
                    if line.is_there {
                        pause = PAUSE;
                    }
                    why
                }
            },
            Err(fault) => fault.text().to_owned(),
        };
        teller.lost(&why);
        let over = async { while teller.wants().await.is_some() {} };
        if timeout(pause, over).await.is_ok() {
            return;
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// A stream of watches.
struct Line {
    ask: Sender<Watch>,
    told: Streaming<Watched>,
    /// What is still to be asked. Both ends must be served: a member that is not listened to does
    /// not listen either.
    asks: VecDeque<Watch>,
    keys: HashMap<i64, KeyId>,
    numbers: HashMap<KeyId, i64>,
    last: i64,
    /// Whether the member has answered.
    is_there: bool,
}

impl Line {
    async fn open(inner: &Inner, teller: &Teller) -> Result<Self, Fault> {
        // This finds a member that answers, and shows it who we are.
        inner.members.read(Txn::of(Op::get(inner.layout.store()))).await?;
        let open = |client: Client| async move {
            let (ask, asks) = channel(ASKS_MAX);
            let first = Watch::begin(inner.layout.store(), OWN);
            let lost = |_| Status::unavailable("the stream ended");
            ask.send(first).await.map_err(lost)?;
            let asks = stream::unfold(asks, |mut asks| async { Some((asks.recv().await?, asks)) });
            Ok((ask, client.watch(asks).await?))
        };
        let (ask, told) = inner.members.call(open, true).await?;
        let (keys, numbers) = (HashMap::new(), HashMap::new());
        let asks = VecDeque::new();
        let mut line = Self { ask, told, asks, keys, numbers, last: OWN, is_there: false };
        teller.wanted().into_iter().for_each(|id| line.begin(inner, id));
        Ok(line)
    }

    fn begin(&mut self, inner: &Inner, id: KeyId) {
        if self.numbers.contains_key(&id) {
            return;
        }
        self.last += 1;
        self.numbers.insert(id, self.last);
        self.keys.insert(self.last, id);
        self.asks.push_back(Watch::begin(inner.layout.record(id), self.last));
    }

    fn end(&mut self, id: KeyId) {
        if let Some(number) = self.numbers.remove(&id) {
            self.keys.remove(&number);
            self.asks.push_back(Watch::end(number));
        }
    }

    /// Until nobody listens any more, or the stream is lost.
    async fn serve(&mut self, inner: &Inner, teller: &Teller) -> Result<(), String> {
        loop {
            tokio::select! {
                wants = teller.wants() => {
                    let Some(wants) = wants else { return Ok(()) };
                    for want in wants {
                        match want {
                            Want::Begin(id) => self.begin(inner, id),
                            Want::End(id) => self.end(id),
                        }
                    }
                }
                room = self.ask.clone().reserve_owned(), if !self.asks.is_empty() => {
                    let room = room.map_err(|_| "the stream ended".to_owned())?;
                    if let Some(ask) = self.asks.pop_front() {
                        room.send(ask);
                    }
                }
                told = self.told.message() => match told {
                    Ok(Some(told)) => self.heed(&told, teller)?,
                    Ok(None) => return Err("the stream ended".to_owned()),
                    Err(status) => return Err(status.message().to_owned()),
                },
            }
        }
    }

    fn heed(&mut self, told: &Watched, teller: &Teller) -> Result<(), String> {
        if told.number == OWN && told.begun && !told.ended {
            self.is_there = true;
            teller.flows();
        }
        let Some(id) = self.keys.get(&told.number) else {
            // Of a watch that was ended, something may still come.
            let is_refused = told.ended && !told.why.is_empty();
            return if is_refused { Err(told.why.clone()) } else { Ok(()) };
        };
        if told.ended {
            return Err(format!("a watch was ended: {}", told.why));
        }
        // What changed before the watch began is not told by it.
        if told.begun || !told.events.is_empty() {
            teller.tell(*id);
        }
        Ok(())
    }
}
