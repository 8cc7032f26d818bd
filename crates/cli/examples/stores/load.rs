//! Callers of the engine, and of anything else that makes pairs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use onlyonce::{Claimed, Engine, Request, Settings};
use onlyonce_core::{Fingerprint, KeyId, Phase, Policy, Reply};
use onlyonce_store::Store;
use onlyonce_tokio::TokioRuntime;

/// The reply of a pair, in bytes.
const REPLY: usize = 1 << 10;

/// An id that no other number has, spread as a digest is.
pub(crate) fn id(number: u64) -> [u8; 16] {
    let mut id = [0; 16];
    let mixed = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    id[..8].copy_from_slice(&mixed.to_be_bytes());
    id[8..]
        .copy_from_slice(&mixed.rotate_left(29).wrapping_mul(0xD134_2543_DE82_EF95).to_be_bytes());
    id
}

/// What callers of the store found.
pub(crate) struct Figures {
    pub(crate) pairs: usize,
    pub(crate) pairs_per_s: f64,
    /// From the claim to the end of the completion.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// An engine on a store, and keys that were never used.
pub(crate) struct Engines {
    engine: Engine,
    next: Arc<AtomicU64>,
}

impl Engines {
    pub(crate) async fn on(store: Arc<dyn Store>) -> Self {
        let runtime = Arc::new(TokioRuntime::new());
        let engine = Engine::start(store, runtime, Settings::default(), None).await.unwrap();
        Self { engine, next: Arc::default() }
    }

    /// A claim that is not ended, and one that is: for who wants to see the bytes of both.
    pub(crate) async fn samples(&self) -> ([u8; 16], [u8; 16]) {
        let ids = [0, 1].map(|_| id(self.next.fetch_add(1, Ordering::Relaxed)));
        for (at, id) in ids.into_iter().enumerate() {
            let request = Request::new(KeyId::from_bytes(id), Fingerprint::new(1, [7; 32]));
            let policy = Policy::default();
            let claimed = self.engine.claim(&request, &policy, Phase::Committing).await.unwrap();
            let Claimed::Granted(ticket) = claimed else { panic!("{claimed:?}") };
            if at == 0 {
                // It stays as it is until the program ends.
                std::mem::forget(ticket);
            } else {
                ticket.complete(reply()).await.unwrap();
            }
        }
        (ids[0], ids[1])
    }

    /// One claim and its completion after the other, by each of `callers` at once.
    pub(crate) async fn pairs(&self, callers: usize, time: Duration) -> Figures {
        let begun = Instant::now();
        let calling = (0..callers).map(|_| {
            let (engine, next) = (self.engine.clone(), Arc::clone(&self.next));
            tokio::spawn(async move {
                let mut took = Vec::new();
                while begun.elapsed() < time {
                    let started = Instant::now();
                    pair(&engine, id(next.fetch_add(1, Ordering::Relaxed))).await;
                    took.push(started.elapsed());
                }
                took
            })
        });
        let mut took = Vec::new();
        for caller in calling.collect::<Vec<_>>() {
            took.extend(caller.await.unwrap());
        }
        let pairs_per_s = took.len() as f64 / begun.elapsed().as_secs_f64();
        took.sort_unstable();
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        Figures { pairs: took.len(), pairs_per_s, p50_ms: at(0.5), p99_ms: at(0.99) }
    }
}

fn reply() -> Reply {
    Reply::kept(201, Bytes::from(vec![b'x'; REPLY]))
}

async fn pair(engine: &Engine, id: [u8; 16]) {
    let request = Request::new(KeyId::from_bytes(id), Fingerprint::new(1, [7; 32]));
    let policy = Policy::default();
    let claimed = engine.claim(&request, &policy, Phase::Committing).await.unwrap();
    let Claimed::Granted(ticket) = claimed else { panic!("{claimed:?}") };
    ticket.complete(reply()).await.unwrap();
}

/// The swaps of transactions of one size: claims, and completions of earlier ones.
pub(crate) struct Batches {
    size: usize,
    next: u64,
    open: Vec<[u8; 16]>,
    pub(crate) pairs: u64,
}

impl Batches {
    /// Of keys that were never used if each call has numbers of its own.
    pub(crate) const fn of(size: usize, first: u64) -> Self {
        Self { size, next: first, open: Vec::new(), pairs: 0 }
    }

    /// The number after the last key.
    pub(crate) const fn next(&self) -> u64 {
        self.next
    }

    /// Keys to claim and keys to complete: half of each as soon as there are enough.
    pub(crate) fn gather(&mut self) -> (Vec<[u8; 16]>, Vec<[u8; 16]>) {
        let ends = self.open.len().min(self.size.div_ceil(2));
        let ended: Vec<_> = self.open.drain(..ends).collect();
        let made: Vec<_> = (0..(self.size - ends) as u64).map(|at| id(self.next + at)).collect();
        self.next += made.len() as u64;
        self.open.extend(&made);
        self.pairs += ended.len() as u64;
        (made, ended)
    }
}
