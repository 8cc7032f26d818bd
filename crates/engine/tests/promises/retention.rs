//! What a late retry gets at each age: the reply, that it is gone, that it is expired; and never a
//! second run of a key that carries its time.

use std::time::Duration;

use onlyonce::core::limits::FOREVER;
use onlyonce::core::{Floor, Outcome, Policy, State, StateKind, Timestamp};
use onlyonce::store::Store;
use onlyonce::{Answer, Engine, EngineEvent, Ran, Request, Settings, Sweeper, Swept, direct};
use onlyonce_conformance::Fault;

use crate::common::{Rigged, World, order, request, seconds};

pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// When the same request comes back, and what it is then told if its key carries its time.
pub(crate) const LATER: [(Duration, fn() -> Answer); 5] = [
    (Duration::from_secs(1), || Answer::Replayed(order(1))),
    (Duration::from_secs(23 * 60 * 60), || Answer::Replayed(order(1))),
    (Duration::from_secs(29 * 24 * 60 * 60), gone),
    (Duration::from_secs(32 * 24 * 60 * 60), || Answer::Refused(Outcome::Expired)),
    (Duration::from_secs(3_650 * 24 * 60 * 60), || Answer::Refused(Outcome::Expired)),
];

fn gone() -> Answer {
    Answer::Refused(Outcome::Gone {
        answered_at: Timestamp::from_millis(0),
        status: 201,
        sealed: false,
    })
}

/// The answer without the moment of the first one.
pub(crate) fn shown(answer: Answer) -> Answer {
    if matches!(answer, Answer::Refused(Outcome::Gone { .. })) { gone() } else { answer }
}

/// Asks for an order under the policy; every run has a number of its own.
pub(crate) async fn ask(
    world: &World,
    request: &Request,
    policy: &Policy,
    takes: Duration,
) -> Answer {
    let outside = std::sync::Arc::clone(&world.outside);
    let run = direct(move |attempt| async move {
        let reply = outside.run(attempt);
        tokio::time::sleep(takes).await;
        Ran::Happened(reply)
    });
    world.engine.once(request, policy, seconds(1), run).await.unwrap()
}

/// As many passes as it takes until what may be forgotten now is.
pub(crate) async fn swept(engine: &Engine, policy: Policy) -> Swept {
    let mut sweeper = Sweeper::new(engine.clone(), policy);
    let mut sum = Swept::default();
    for _ in 0..3 {
        let Swept { ended, deleted, damaged } = sweeper.pass().await.unwrap();
        sum = Swept {
            ended: sum.ended + ended,
            deleted: sum.deleted + deleted,
            damaged: sum.damaged + damaged,
        };
        tokio::time::sleep(sweeper.pause()).await;
    }
    sum
}

/// A new store in the place of one that is lost: strict, since nobody knows what that one knew.
async fn lost(world: &World) -> World {
    let store = Rigged::new();
    store.raise_floor(Floor::at(world.engine.now().plus(seconds(300)))).await.unwrap();
    world.beside(store).await
}

/// Cases B57 and B60.
#[tokio::test(start_paused = true)]
async fn a_key_that_carries_its_time_runs_once_however_late_it_comes_back() {
    for (later, told) in LATER {
        for is_swept in [false, true] {
            let world = World::new().await;
            let timed = Request { key_time: Some(world.engine.now()), ..request() };
            let policy = Policy::default();
            let first = ask(&world, &timed, &policy, seconds(0)).await;
            assert_eq!(first, Answer::Reply(order(1)));
            tokio::time::sleep(later).await;
            if is_swept {
                swept(&world.engine, policy).await;
                let kept = world.engine.get(timed.id).await.unwrap().is_some();
                assert_eq!(kept, later < 31 * DAY, "{later:?}");
            }
            let again = ask(&world, &timed, &policy, seconds(0)).await;
            assert_eq!(shown(again), told(), "{later:?}, swept: {is_swept}");
            assert_eq!(world.outside.runs(), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_carries_its_time_is_refused_after_the_store_was_lost() {
    for (later, _) in LATER {
        let first = World::new().await;
        let timed = Request { key_time: Some(first.engine.now()), ..request() };
        ask(&first, &timed, &first.policy, seconds(0)).await;
        tokio::time::sleep(later).await;
        let world = lost(&first).await;
        let again = ask(&world, &timed, &world.policy, seconds(0)).await;
        assert_eq!(again, Answer::Refused(Outcome::Expired), "{later:?}");
        assert_eq!(world.outside.runs(), 1);
        // What is made from then on is accepted.
        tokio::time::sleep(seconds(301)).await;
        let new = Request { key_time: Some(world.engine.now()), ..request() };
        assert_eq!(ask(&world, &new, &world.policy, seconds(0)).await, Answer::Reply(order(2)));
    }
}

/// Case B57.
#[tokio::test(start_paused = true)]
async fn a_key_without_a_time_runs_as_new_once_it_is_forgotten_and_not_before() {
    for (later, told) in LATER {
        let world = World::new().await;
        ask(&world, &request(), &world.policy, seconds(0)).await;
        tokio::time::sleep(later).await;
        swept(&world.engine, world.policy).await;
        let again = ask(&world, &request(), &world.policy, seconds(0)).await;
        if later < 30 * DAY {
            assert_eq!(shown(again), told());
            assert_eq!(world.outside.runs(), 1);
        } else {
            assert_eq!(again, Answer::Reply(order(2)), "as the documents say");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_for_ever_is_never_run_again_and_never_deleted() {
    let world = World::new().await;
    let policy = Policy { remember: FOREVER, ..world.policy }.check().unwrap();
    let timed = Request {
        id: onlyonce::core::KeyId::from_bytes([2; 16]),
        key_time: Some(world.engine.now()),
        ..request()
    };
    for (at, one) in [request(), timed.clone()].iter().enumerate() {
        let answer = ask(&world, one, &policy, seconds(0)).await;
        assert_eq!(answer, Answer::Reply(order(at + 1)));
    }
    for years in [1, 10, 1_000] {
        tokio::time::sleep(365 * DAY * years).await;
        // The reply becomes a tombstone, once, and that is all there is to do.
        let Swept { ended, deleted, damaged } = swept(&world.engine, policy).await;
        assert_eq!((ended, deleted, damaged), (if years == 1 { 2 } else { 0 }, 0, 0));
        for one in [&request(), &timed] {
            assert_eq!(shown(ask(&world, one, &policy, seconds(0)).await), gone());
            assert!(world.engine.get(one.id).await.unwrap().is_some());
        }
        assert_eq!(world.outside.runs(), 2);
        // New keys that carry an old time are not refused for it: the floor never rises.
        assert_eq!(world.store.floor().await.unwrap(), Floor::NONE);
    }
    let record = world.engine.get(timed.id).await.unwrap().unwrap();
    let State::Tombstone { forget_at, .. } = record.state else { panic!("{record:?}") };
    assert_eq!(forget_at, Timestamp::MAX);
}

#[tokio::test(start_paused = true)]
async fn what_a_pass_has_deleted_is_told_although_no_room_is_given_back() {
    let world = World::new().await;
    ask(&world, &request(), &world.policy, seconds(0)).await;
    tokio::time::sleep(32 * DAY).await;
    world.store.set_full(true);
    let mut sweeper = Sweeper::new(world.engine.clone(), world.policy);
    sweeper.pass().await.unwrap_err();
    assert_eq!(world.engine.get(request().id).await.unwrap(), None);
    let is_told =
        |event: &EngineEvent| matches!(event, EngineEvent::Swept { swept } if swept.deleted == 1);
    assert_eq!(world.events.count(is_told), 1);
}

/// As where somebody's transaction has it.
#[tokio::test(start_paused = true)]
async fn a_key_that_the_store_does_not_write_now_keeps_no_other_from_its_end() {
    let world = World::new().await;
    for number in 1..=100 {
        let one = Request { id: onlyonce_conformance::id(number), ..request() };
        ask(&world, &one, &world.policy, seconds(0)).await;
    }
    tokio::time::sleep(2 * DAY).await;
    world.store.faults.plan_swaps([Fault::None, Fault::Refused]);
    let mut sweeper = Sweeper::new(world.engine.clone(), world.policy);
    let error = sweeper.pass().await.unwrap_err();
    assert!(error.to_string().contains("refused on purpose"), "{error}");
    let is_told =
        |event: &EngineEvent| matches!(event, EngineEvent::Swept { swept } if swept.ended == 99);
    assert_eq!(world.events.count(is_told), 1);
    assert_eq!(sweeper.pass().await.unwrap().ended, 1);
    // A store that writes none is not asked a hundred times.
    tokio::time::sleep(40 * DAY).await;
    sweeper.pass().await.unwrap();
    tokio::time::sleep(sweeper.pause()).await;
    world.store.faults.plan_swaps([Fault::Refused; 100]);
    let calls = world.store.calls();
    sweeper.pass().await.unwrap_err();
    assert!(world.store.calls() - calls < 200, "{}", world.store.calls() - calls);
}

/// Case B63.
#[tokio::test(start_paused = true)]
async fn retention_counts_from_completion() {
    let world = World::new().await;
    let first = ask(&world, &request(), &world.policy, 5 * HOUR).await;
    assert_eq!(first, Answer::Reply(order(1)));
    tokio::time::sleep(23 * HOUR).await;
    swept(&world.engine, world.policy).await;
    let again = ask(&world, &request(), &world.policy, seconds(0)).await;
    assert_eq!(again, Answer::Replayed(order(1)));
}

#[tokio::test(start_paused = true)]
async fn memory_made_longer_and_shorter_again_forgets_no_key_that_ran() {
    let world = World::new().await;
    let day = Policy { retention: DAY, remember: DAY, ..world.policy };
    let month = Policy { retention: 30 * DAY, remember: 30 * DAY, ..world.policy };
    let mut ran = Vec::new();
    // One a day, while the policy is changed under them, and everything comes back every day.
    for (at, policy) in (0..).zip([day, day, day, month, month, month, day, day, day, day]) {
        let mut bytes = [0; 16];
        bytes[0] = at;
        let id = onlyonce::core::KeyId::from_bytes(bytes);
        let new = Request { id, key_time: Some(world.engine.now()), ..request() };
        let answer = ask(&world, &new, &policy, seconds(0)).await;
        assert_eq!(answer, Answer::Reply(order(ran.len() + 1)));
        ran.push(new);
        tokio::time::sleep(DAY).await;
        swept(&world.engine, policy).await;
        for old in &ran {
            let again = ask(&world, old, &policy, seconds(0)).await;
            assert!(!matches!(again, Answer::Reply(_)), "{again:?} on day {at}");
        }
    }
    assert_eq!(world.outside.runs(), ran.len());
}

#[tokio::test(start_paused = true)]
async fn what_is_in_doubt_is_never_forgotten() {
    let world = World::new().await;
    let ticket = world.claimed(onlyonce::core::Phase::Committing).await;
    std::mem::forget(ticket);
    tokio::time::sleep(3_650 * DAY).await;
    swept(&world.engine, world.policy).await;
    let record = world.engine.get(request().id).await.unwrap().unwrap();
    assert_eq!(record.state.kind(), StateKind::Unknown);
    let again = ask(&world, &request(), &world.policy, seconds(0)).await;
    assert!(matches!(again, Answer::Refused(Outcome::OutcomeUnknown { .. })), "{again:?}");
    assert_eq!(world.outside.runs(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_told_by_each_pass_and_hinders_nothing_else() {
    let world = World::new().await;
    let other = Request::new(onlyonce::core::KeyId::from_bytes([9; 16]), request().fingerprint);
    for one in [&request(), &other] {
        ask(&world, one, &world.policy, seconds(0)).await;
    }
    tokio::time::sleep(31 * DAY).await;
    world.store.damage(request().id);
    let swept = swept(&world.engine, world.policy).await;
    assert_eq!((swept.deleted, swept.damaged), (1, 3));
    assert!(world.engine.get(other.id).await.unwrap().is_none());
}

/// Case B139: under constant load, with a sweeper that is killed now and then, a store holds no
/// more than it must.
#[tokio::test(start_paused = true)]
async fn a_store_under_load_does_not_grow_however_often_the_sweeper_dies() {
    const EVERY: Duration = Duration::from_millis(500);
    let minute = Duration::from_secs(60);
    let mut most = Vec::new();
    for dies in [false, true] {
        let world = World::new().await;
        let policy = Policy { retention: minute, remember: minute, ..world.policy };
        let sweeper = || tokio::spawn(Sweeper::new(world.engine.clone(), policy).run());
        let (mut sweeping, mut largest) = (sweeper(), 0);
        for number in 0_u64..7_200 {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
            let new = Request::new(onlyonce::core::KeyId::from_bytes(bytes), request().fingerprint);
            assert!(matches!(ask(&world, &new, &policy, EVERY).await, Answer::Reply(_)));
            if dies && number % 1_000 == 999 {
                sweeping.abort();
                sweeping = sweeper();
            }
            if number % 60 == 0 {
                let page = onlyonce::store::Filter { limit: 10_000, ..Default::default() };
                largest = largest.max(world.store.list(page, None).await.unwrap().records.len());
            }
        }
        sweeping.abort();
        most.push(largest);
    }
    let [steady, killed] = most[..] else { panic!("{most:?}") };
    assert!(steady <= 2 * 60 * 4, "{steady} are kept of two a second");
    assert!(killed <= 2 * steady, "{killed} instead of {steady}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_deleted_before_everyone_uses_the_floor_that_covers_it() {
    let world = World::with(Rigged::shared(), Settings::default()).await;
    let timed = Request { key_time: Some(world.engine.now()), ..request() };
    ask(&world, &timed, &world.policy, seconds(0)).await;
    tokio::time::sleep(31 * DAY).await;
    let mut sweeper = Sweeper::new(world.engine.clone(), world.policy);
    for _ in 0..3 {
        // Asked too early: the floor is durable, but others may still use the one before.
        assert_eq!(sweeper.pass().await.unwrap().deleted, 0);
        assert!(world.engine.get(timed.id).await.unwrap().is_some());
        tokio::time::sleep(seconds(10)).await;
    }
    tokio::time::sleep(sweeper.pause()).await;
    assert_eq!(sweeper.pass().await.unwrap().deleted, 1);
    assert!(world.engine.get(timed.id).await.unwrap().is_none());
}

/// A command that runs from time to time, and ends long before everyone uses the floor that its
/// sweeper raises.
#[tokio::test(start_paused = true)]
async fn sweepers_that_all_live_for_a_moment_forget_in_the_end_and_no_sooner_than_one_would() {
    for every in [seconds(2), seconds(50), seconds(3_600)] {
        let world = World::with(Rigged::shared(), Settings::default()).await;
        let timed = Request { key_time: Some(world.engine.now()), ..request() };
        ask(&world, &timed, &world.policy, seconds(0)).await;
        tokio::time::sleep(31 * DAY).await;
        let first = world.engine.now();
        let mut passes = 0;
        loop {
            let sweeper = Sweeper::new(world.engine.clone(), world.policy).handing_on();
            let pause = sweeper.pause();
            let since = world.engine.now().since(first);
            let deleted = { sweeper }.pass().await.unwrap().deleted;
            if deleted == 1 {
                assert!(pause < since, "others may use an older floor after {since:?}");
                break;
            }
            assert!(world.engine.get(timed.id).await.unwrap().is_some());
            assert!(since < pause + pause + every, "none of them has waited long enough");
            passes += 1;
            tokio::time::sleep(every).await;
        }
        assert!(0 < passes);
        assert!(world.engine.get(timed.id).await.unwrap().is_none());
        // What became of its key does not depend on which of them it was.
        let again = ask(&world, &timed, &world.policy, seconds(0)).await;
        assert_eq!(again, Answer::Refused(Outcome::Expired));
    }
}

/// One that is the first to know that everyone uses a floor may end before it has forgotten all.
#[tokio::test(start_paused = true)]
async fn what_a_sweeper_knew_the_next_one_knows() {
    let world = World::with(Rigged::shared(), Settings::default()).await;
    let timed = Request { key_time: Some(world.engine.now()), ..request() };
    ask(&world, &timed, &world.policy, seconds(0)).await;
    tokio::time::sleep(31 * DAY).await;
    let pass = async || {
        let sweeper = Sweeper::new(world.engine.clone(), world.policy).handing_on();
        { sweeper }.pass().await.unwrap().deleted
    };
    world.store.damage(timed.id);
    for _ in 0..100 {
        assert_eq!(pass().await, 0);
        tokio::time::sleep(seconds(3)).await;
    }
    world.store.damage(onlyonce::core::KeyId::from_bytes([0; 16]));
    assert_eq!(pass().await, 1);
}

/// Nobody can replace it: a sweeper that lives long does without, and somebody is told.
#[tokio::test(start_paused = true)]
async fn a_word_that_cannot_be_read_is_told_once_and_hinders_nobody() {
    let world = World::with(Rigged::shared(), Settings::default()).await;
    let timed = Request { key_time: Some(world.engine.now()), ..request() };
    ask(&world, &timed, &world.policy, seconds(0)).await;
    tokio::time::sleep(31 * DAY).await;
    world.store.damage(onlyonce::store::transaction::SWEPT);
    let mut sweeper = Sweeper::new(world.engine.clone(), world.policy).handing_on();
    for deleted in [0, 1] {
        assert_eq!(sweeper.pass().await.unwrap().deleted, deleted);
        tokio::time::sleep(sweeper.pause()).await;
    }
    let told = |event: &EngineEvent| matches!(event, EngineEvent::StoreFailed { .. });
    assert_eq!(world.events.count(told), 1);
}

/// What a pass asks of a store for a stream of keys that carry their time, which all wait for the
/// floor: about as much as there is, and not each of them again for each of the others.
#[tokio::test(start_paused = true)]
async fn a_pass_looks_at_each_key_that_waits_for_the_floor_about_once() {
    const EACH: usize = 10_000;
    let world = World::new().await;
    let minute = Duration::from_secs(60);
    let short = Policy { retention: minute, remember: minute, ..world.policy };
    let mut sweeper = Sweeper::new(world.engine.clone(), short);
    let mut number = 0_u64;
    let mut deleted = 0;
    for round in 0..5 {
        for _ in 0..EACH {
            number += 1;
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
            let new = Request::new(onlyonce::core::KeyId::from_bytes(bytes), request().fingerprint);
            let timed = Request { key_time: Some(world.engine.now()), ..new };
            ask(&world, &timed, &short, seconds(0)).await;
        }
        tokio::time::sleep(sweeper.pause()).await;
        let before = world.store.calls();
        deleted += sweeper.pass().await.unwrap().deleted;
        let calls = world.store.calls() - before;
        assert!(calls <= 8 * EACH, "{calls} calls in pass {round}");
    }
    assert!(2 * EACH as u64 <= deleted, "{deleted} of {number} are forgotten");

    // Memory is made longer: what is kept longer for it is not looked at until its time comes.
    let long = Policy { retention: minute, remember: 10 * DAY, ..world.policy };
    let mut sweeper = Sweeper::new(world.engine.clone(), long);
    let mut calls = Vec::new();
    for _ in 0..12 {
        tokio::time::sleep(sweeper.pause()).await;
        let before = world.store.calls();
        assert_eq!(sweeper.pass().await.unwrap().deleted, 0);
        calls.push(world.store.calls() - before);
    }
    assert!(calls.iter().all(|calls| *calls <= 8 * 3 * EACH), "{calls:?}");
    assert!(calls[8..].iter().all(|calls| *calls <= 10), "{calls:?}");
    tokio::time::sleep(11 * DAY).await;
    assert!(0 < swept(&world.engine, long).await.deleted);
}
