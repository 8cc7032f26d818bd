//! The same for every broker: connecting again and again, and settling several deliveries at once.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use futures_util::future::{FutureExt as _, Shared};
use futures_util::{Stream, StreamExt as _};
use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep;

use crate::aside::Why;
use crate::inbox::InboxError;

/// How many times as long as the first pause the longest one is.
const TIMES_MAX: u32 = 30;

/// What a consumer tells about its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// It takes messages from now on.
    Connected,
    /// It has lost its broker, and tries again. What runs goes on.
    Lost(String),
    /// A message was carried out and acknowledged.
    Done,
    /// A message was done with before: acknowledged, and nothing run.
    Duplicate,
    /// A message comes later, for this reason.
    Later(String),
    /// A message was put aside, for this reason. Somebody should look.
    Aside(Why, String),
    /// Who asked for a message could not be answered: the queue that it named is gone.
    Unanswered(String),
}

impl Told {
    /// Whether somebody should look.
    pub const fn is_alarm(&self) -> bool {
        match self {
            Self::Aside(..) => true,
            Self::Connected
            | Self::Lost(_)
            | Self::Done
            | Self::Duplicate
            | Self::Later(_)
            | Self::Unanswered(_) => false,
        }
    }
}

/// How the work on a connection has ended.
#[derive(Debug)]
pub enum Ended {
    /// It was asked to.
    Stopped,
    /// The broker is lost, for this reason.
    Lost(String),
    /// The store is gone for good.
    Store(InboxError),
}

/// Opens a connection and works on it, and does so again whenever the broker is lost, until `stop`,
/// which both are given too. After a connection was lost it waits for `pause`, twice as long after
/// each further one that does not even open, up to thirty times. `tell` is told.
///
/// # Errors
/// The store is gone for good.
pub async fn keep_connected<S, E, Stop, O, W>(
    pause: Duration,
    stop: Stop,
    tell: &impl Fn(Told),
    open: impl Fn() -> O,
    work: impl Fn(S, Shared<Stop>) -> W,
) -> Result<(), InboxError>
where
    E: Display,
    Stop: Future<Output = ()>,
    O: Future<Output = Result<S, E>>,
    W: Future<Output = Ended>,
{
    let stop = stop.shared();
    let mut times = 1;
    loop {
        let opened = tokio::select! {
            () = stop.clone() => return Ok(()),
            opened = open() => opened,
        };
        let why = match opened {
            Ok(session) => {
                tell(Told::Connected);
                times = 1;
                match work(session, stop.clone()).await {
                    Ended::Stopped => return Ok(()),
                    Ended::Store(error) => return Err(error),
                    Ended::Lost(why) => why,
                }
            }
            Err(error) => error.to_string(),
        };
        tell(Told::Lost(why));
        tokio::select! {
            () = stop.clone() => return Ok(()),
            () = sleep(pause.saturating_mul(times)) => {}
        }
        times = TIMES_MAX.min(times * 2);
    }
}

/// Why a delivery was not settled: it comes again.
#[derive(Debug)]
pub enum Unsettled {
    /// The broker could not be told, for this reason.
    Broker(String),
    /// The store is gone for good.
    Store(InboxError),
}

/// What is being settled on one connection.
#[derive(Debug)]
pub struct Work {
    running: JoinSet<Result<(), Unsettled>>,
    at_once: usize,
}

impl Work {
    /// None yet, and never more than so many.
    pub fn new(at_once: usize) -> Self {
        Self { running: JoinSet::new(), at_once: at_once.max(1) }
    }

    /// Settles deliveries as they come, each in a task of its own, until the broker or the store is
    /// lost, or `stop`. What runs then goes on.
    pub async fn take<D, E: Display, F>(
        &mut self,
        deliveries: &mut (impl Stream<Item = Result<D, E>> + Unpin),
        stop: &mut (impl Future<Output = ()> + Unpin),
        settle: impl Fn(D) -> F,
    ) -> Ended
    where
        F: Future<Output = Result<(), Unsettled>> + Send + 'static,
    {
        loop {
            tokio::select! {
                () = &mut *stop => return Ended::Stopped,
                Some(joined) = self.running.join_next(), if !self.running.is_empty() => {
                    if let Some(ended) = bad_end(joined) {
                        return ended;
                    }
                }
                delivery = deliveries.next(), if self.running.len() < self.at_once => {
                    match delivery {
                        Some(Ok(delivery)) => drop(self.running.spawn(settle(delivery))),
                        Some(Err(error)) => return Ended::Lost(error.to_string()),
                        None => return Ended::Lost("it has ended the consumer".into()),
                    }
                }
            }
        }
    }

    /// Waits until nothing runs, and says how all of it has ended.
    pub async fn finish(&mut self) -> Ended {
        while let Some(joined) = self.running.join_next().await {
            if let Some(Ended::Store(error)) = bad_end(joined) {
                return Ended::Store(error);
            }
        }
        Ended::Stopped
    }

    /// Leaves what still runs alone, without its delivery: the next one finds its record.
    pub fn leave(mut self) {
        self.running.detach_all();
    }
}

fn bad_end(joined: Result<Result<(), Unsettled>, JoinError>) -> Option<Ended> {
    match joined {
        Ok(Ok(())) => None,
        Ok(Err(Unsettled::Store(error))) => Some(Ended::Store(error)),
        Ok(Err(Unsettled::Broker(why))) => Some(Ended::Lost(why)),
        // A handler that panics leaves its delivery unsettled: it comes again on the next one.
        Err(error) => Some(Ended::Lost(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::{pending, ready};

    use tokio::time::Instant;

    use super::*;

    /// What is told by a consumer that finds its broker so, opened (`true`) or not, until this much
    /// is over; each with the seconds that have gone by.
    async fn told(broker: &[bool], ends: Duration) -> Vec<(u64, Told)> {
        let (began, all) = (Instant::now(), RefCell::new(Vec::new()));
        let tell = |told| all.borrow_mut().push((began.elapsed().as_secs(), told));
        let finds = RefCell::new(broker.iter());
        let open = || ready(finds.borrow_mut().next().filter(|it| **it).ok_or("away"));
        let work = |_, _| ready(Ended::Lost("cut".to_owned()));
        keep_connected(Duration::from_secs(1), sleep(ends), &tell, open, work).await.unwrap();
        all.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_stays_away_is_asked_less_and_less_often() {
        let lost = told(&[], Duration::from_secs(100)).await;
        let when: Vec<_> = lost.iter().map(|(when, _)| *when).collect();
        assert_eq!(when, [0, 1, 3, 7, 15, 31, 61, 91]);
        assert!(lost.iter().all(|(_, it)| *it == Told::Lost("away".to_owned())), "{lost:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_there_is_soon_asked_again() {
        let told = told(&[false, false, true, false], Duration::from_secs(5)).await;
        let lost = |why: &str| Told::Lost(why.to_owned());
        let before = [(0, lost("away")), (1, lost("away"))];
        let there = [(3, Told::Connected), (3, lost("cut")), (4, lost("away"))];
        assert_eq!(told, [&before[..], &there].concat());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_is_heard_while_a_connection_is_being_made_and_on_it() {
        let began = Instant::now();
        let stop = || sleep(Duration::from_secs(5));
        let pause = Duration::from_secs(1);
        let silent = pending::<Result<(), &str>>;
        let none = |(), _| ready(Ended::Stopped);
        keep_connected(pause, stop(), &drop, silent, none).await.unwrap();
        assert_eq!(began.elapsed(), Duration::from_secs(5));
        let open = || ready(Ok::<(), &str>(()));
        let work = async |(), stop: Shared<_>| {
            stop.await;
            Ended::Stopped
        };
        keep_connected(pause, stop(), &drop, open, work).await.unwrap();
        assert_eq!(began.elapsed(), Duration::from_secs(10));
    }
}
