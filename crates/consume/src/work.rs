//! Deliveries that are being settled, several at once: the same for every broker.

use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;

use futures_util::{Stream, StreamExt as _};
use tokio::task::{JoinError, JoinSet};

use crate::inbox::InboxError;

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
        stop: &mut Pin<&mut impl Future<Output = ()>>,
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
