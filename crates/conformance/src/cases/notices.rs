//! Notices: that a key for which somebody waits has been ended by another process.

use std::collections::HashSet;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use futures_executor::block_on;
use onlyonce_core::{KeyId, Record, StateKind};
use onlyonce_store::{Notice, Notices, Store as _, notices};

use super::{get, put};
use crate::{Tells, answered, claimed, id, in_doubt, released};

/// How long a notice may take to come before it counts as lost, which fails the case.
const COMES_WITHIN: Duration = Duration::from_secs(20);

/// Those who wait on a store.
struct Waiting(Notices);

impl Waiting {
    /// Once notices flow.
    fn on<B: Tells>(store: &B::Store) -> Self {
        let (notices, teller) = notices();
        store.notices(teller);
        let waiting = Self(notices);
        while waiting.next() != Some(Notice::Flow) {}
        waiting
    }

    /// The next notice; a thread of its own waits for it, so that none that is lost is waited for.
    fn next(&self) -> Option<Notice> {
        let (tell, told) = channel();
        let next = self.0.next();
        thread::spawn(move || {
            let _ = tell.send(block_on(next));
        });
        let told = told.recv_timeout(COMES_WITHIN);
        told.unwrap_or_else(|_| panic!("no notice within {COMES_WITHIN:?}"))
    }

    /// Waits until it was told of all of these, in any order and perhaps more than once.
    fn await_all(&self, numbers: impl IntoIterator<Item = u64>) {
        let mut left: HashSet<KeyId> = numbers.into_iter().map(id).collect();
        while !left.is_empty() {
            match self.next() {
                Some(Notice::Changed(id)) => left.remove(&id),
                Some(Notice::Flow | Notice::Lost(_)) => false,
                None => panic!("nothing is told any more, of {left:?} too"),
            };
        }
    }
}

/// However another process ends it, who waits for a key is told.
pub fn who_waits_for_a_key_is_told_when_another_process_ends_it<B: Tells>(builder: &B) {
    let store = builder.fresh();
    let other = builder.beside(&store);
    let (waiting, _ends) = (Waiting::on::<B>(&store), Waiting::on::<B>(&other));
    let ends: [fn(&Record) -> Option<Record>; 4] = [
        |one| Some(answered(one, 1_000, "order")),
        |one| Some(released(one, 1_000)),
        |one| Some(in_doubt(one, 1_000)),
        |_| None,
    ];
    for (number, end) in (0..).zip(ends) {
        let one = claimed(number);
        put(&other, number, None, Some(&one));
        waiting.0.want(id(number));
        assert_eq!(get(&store, number).as_ref(), Some(&one));
        put(&other, number, Some(&one), end(&one).as_ref());
        waiting.await_all([number]);
    }
}

/// Many keys that end at once are each told.
pub fn of_many_keys_each_is_told<B: Tells>(builder: &B) {
    const KEYS: u64 = 1_000;
    let store = builder.fresh();
    let other = builder.beside(&store);
    let (waiting, _ends) = (Waiting::on::<B>(&store), Waiting::on::<B>(&other));
    let claims: Vec<Record> = (0..KEYS).map(claimed).collect();
    let ids = || (0..KEYS).map(id);
    let all = |swaps: Vec<_>| {
        for swap in block_on(futures_util::future::join_all(swaps)) {
            assert_eq!(swap, Ok(onlyonce_store::Swap::Done));
        }
    };
    let made = ids().zip(&claims).map(|(id, one)| other.swap(id, None, Some(one.clone())));
    all(made.collect());
    ids().for_each(|id| waiting.0.want(id));
    assert_eq!(get(&store, KEYS - 1).as_ref(), claims.last());
    let ended = ids()
        .zip(&claims)
        .map(|(id, one)| other.swap(id, Some(one.revision), Some(answered(one, 2_000, "order"))));
    all(ended.collect());
    waiting.await_all(0..KEYS);
}

/// Whoever asks for a key at the moment at which it ends, and finds it at work, is told.
pub fn an_end_at_the_moment_of_asking_is_told<B: Tells>(builder: &B) {
    let store = builder.fresh();
    let other = builder.beside(&store);
    let (waiting, _ends) = (Waiting::on::<B>(&store), Waiting::on::<B>(&other));
    for number in 0..50 {
        let one = claimed(number);
        put(&other, number, None, Some(&one));
        thread::scope(|scope| {
            scope.spawn(|| {
                put(&other, number, Some(&one), Some(&answered(&one, 1_000, "order")));
            });
            waiting.0.want(id(number));
            let found = get(&store, number).map(|record| record.state.kind());
            if found == Some(StateKind::InFlight) {
                waiting.await_all([number]);
            }
        });
        waiting.0.leave(id(number));
    }
}

/// Of several processes that wait for a key, each is told.
pub fn all_processes_that_wait_are_told<B: Tells>(builder: &B) {
    let store = builder.fresh();
    let others = [builder.beside(&store), builder.beside(&store)];
    let waiting = others.each_ref().map(|other| Waiting::on::<B>(other));
    let _ends = Waiting::on::<B>(&store);
    for number in 0..5 {
        let one = claimed(number);
        put(&store, number, None, Some(&one));
        for (other, waiting) in others.iter().zip(&waiting) {
            waiting.0.want(id(number));
            assert_eq!(get(other, number).as_ref(), Some(&one));
        }
        put(&store, number, Some(&one), Some(&answered(&one, 1_000, "order")));
        waiting.iter().for_each(|waiting| waiting.await_all([number]));
    }
}
