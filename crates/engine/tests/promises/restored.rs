//! What a retry gets at each age after its store was put back from an older copy of itself: what
//! ran after the copy was made, and can be known to have, runs no second time.

use std::time::Duration;

use onlyonce::core::{Cause, Outcome, Phase, Reply, State, StateKind};
use onlyonce::store::{Filter, Store as _};
use onlyonce::{Answer, Request, Restored};
use onlyonce_conformance::Fault;

use crate::common::{Rigged, World, order, request, seconds};
use crate::retention::{DAY, LATER, ask, shown, swept};

const AHEAD: Duration = Duration::from_secs(300);

/// What had become of a key when the copy was made. It ran once before the store was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Was {
    Absent,
    Running,
    Free,
    Doubtful,
    Answered,
}

const ALL: [Was; 5] = [Was::Absent, Was::Running, Was::Free, Was::Doubtful, Was::Answered];

/// Lets the key run once in this world, with a copy made of the store when it was as `was` says.
async fn ran(world: &World, one: &Request, was: Was) -> Rigged {
    if was == Was::Answered {
        ask(world, one, &world.policy, seconds(0)).await;
        return world.store.copied().await;
    }
    if was == Was::Absent {
        let copy = world.store.copied().await;
        ask(world, one, &world.policy, seconds(0)).await;
        return copy;
    }
    let granted = world.engine.claim(one, &world.policy, Phase::Committing).await.unwrap();
    let onlyonce::Claimed::Granted(ticket) = granted else { panic!("{granted:?}") };
    let fence = ticket.record().fence;
    match was {
        Was::Free => drop(ticket.release(false, None).await.unwrap()),
        Was::Doubtful => drop(ticket.abandon(Cause::TimedOut, None).await.unwrap()),
        Was::Absent | Was::Running | Was::Answered => std::mem::forget(ticket),
    }
    let copy = world.store.copied().await;
    let held = world.engine.held(one.id, world.policy, fence);
    if was == Was::Doubtful {
        // Somebody has looked, and it runs again.
        let verdict = onlyonce::core::Verdict::NotExecuted;
        world.engine.resolve(one.id, &world.policy, fence, verdict, "anna", "").await.unwrap();
    }
    if was == Was::Running {
        held.complete(world.outside.run_once()).await.unwrap();
    } else {
        ask(world, one, &world.policy, seconds(0)).await;
    }
    copy
}

async fn put_back(world: &World, copy: Rigged) -> (World, Restored) {
    let after = world.beside(copy).await;
    let restored = after.engine.restored(AHEAD, "anna", "a dump", &|_| {}).await.unwrap();
    (after, restored)
}

fn in_doubt(answer: &Answer) -> Option<Cause> {
    let Answer::Refused(Outcome::OutcomeUnknown { cause, .. }) = answer else { return None };
    Some(*cause)
}

/// What the key that `was` so in the copy is told, this long after it ran.
fn is_told(answer: Answer, was: Was, is_timed: bool, later: Duration, told: Answer) -> usize {
    match was {
        Was::Absent if is_timed => assert_eq!(answer, Answer::Refused(Outcome::Expired)),
        Was::Answered if is_timed || later < 30 * DAY => assert_eq!(shown(answer), told),
        Was::Running | Was::Free => assert_eq!(in_doubt(&answer), Some(Cause::Restored)),
        Was::Doubtful => assert_eq!(in_doubt(&answer), Some(Cause::TimedOut)),
        Was::Absent | Was::Answered => {
            // It cannot be told from a new one, as the documents say.
            assert_eq!(answer, Answer::Reply(order(2)));
            return 2;
        }
    }
    1
}

#[tokio::test(start_paused = true)]
async fn no_key_runs_again_at_any_age_that_can_be_known_to_have_run_since_the_copy() {
    for (later, told) in LATER {
        for (was, is_timed) in ALL.into_iter().flat_map(|was| [(was, true), (was, false)]) {
            for (is_at_once, is_swept) in [(true, true), (true, false), (false, true)] {
                let world = World::new().await;
                let key_time = is_timed.then(|| world.engine.now());
                let one = Request { key_time, ..request() };
                let copy = ran(&world, &one, was).await;
                assert_eq!(world.outside.runs(), 1, "{was:?}");
                // It is put back soon, and the retry comes late; or both are late.
                let after = if is_at_once {
                    let after = put_back(&world, copy).await.0;
                    tokio::time::sleep(later).await;
                    after
                } else {
                    tokio::time::sleep(later).await;
                    put_back(&world, copy).await.0
                };
                if is_swept {
                    swept(&after.engine, after.policy).await;
                }
                let again = ask(&after, &one, &after.policy, seconds(0)).await;
                let at = format!("{was:?}, timed: {is_timed}, {later:?}, swept: {is_swept}");
                if was == Was::Answered && !is_timed && !is_swept && 30 * DAY <= later {
                    // Nobody has forgotten it yet.
                    assert!(matches!(again, Answer::Refused(Outcome::Gone { .. })), "{at}");
                    continue;
                }
                let runs = is_told(again, was, is_timed, later, told());
                assert_eq!(world.outside.runs(), runs, "{at}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_for_anew_after_it_was_put_back_runs() {
    let world = World::new().await;
    let copy = ran(&world, &request(), Was::Answered).await;
    let (after, restored) = put_back(&world, copy).await;
    assert_eq!(restored.floor, after.store.floor().await.unwrap());
    let of = |number| onlyonce::core::KeyId::from_bytes([number; 16]);
    // Until then a key that carries its time may have run.
    for (number, wait, runs) in [(7, 0, 1), (8, 301, 2)] {
        tokio::time::sleep(seconds(wait)).await;
        let key_time = Some(after.engine.now());
        let new = Request { id: of(number), key_time, ..request() };
        let answer = ask(&after, &new, &after.policy, seconds(0)).await;
        let is_expired = answer == Answer::Refused(Outcome::Expired);
        assert_eq!(is_expired, runs == 1, "{answer:?}");
        assert_eq!(world.outside.runs(), runs);
    }
}

#[tokio::test(start_paused = true)]
async fn who_held_a_claim_since_the_copy_completes_it_all_the_same() {
    let world = World::new().await;
    let one = request();
    let copy = ran(&world, &one, Was::Free).await;
    // The claim that ran is not in the copy; its holder has not heard that it was recorded.
    let fence = world.engine.get(one.id).await.unwrap().unwrap().fence;
    tokio::time::sleep(seconds(10)).await;
    let (after, _) = put_back(&world, copy).await;
    let held = after.engine.held(one.id, after.policy, fence);
    assert_eq!(held.complete(order(1)).await.unwrap().outcome, Outcome::Done);
    let again = ask(&after, &one, &after.policy, seconds(0)).await;
    assert_eq!(again, Answer::Replayed(order(1)));
    assert_eq!(world.outside.runs(), 1);
}

/// Keys in each open state, and answered ones, with a copy of them.
async fn many(world: &World) -> (Vec<Request>, Rigged) {
    let mut all = Vec::new();
    for (number, was) in (1..).zip([Was::Running, Was::Free, Was::Doubtful, Was::Answered]) {
        for step in 0..3 {
            let id = onlyonce::core::KeyId::from_bytes([10 * number + step; 16]);
            let one = Request { id, ..request() };
            drop(ran(world, &one, was).await);
            all.push((one, was));
        }
    }
    // Each as it was when a copy was made of it alone: put together.
    let whole = Rigged::shared();
    for (one, was) in &all {
        let alone = World::new().await;
        let copy = ran(&alone, one, *was).await;
        let record = copy.get(one.id).await.unwrap();
        whole.swap(one.id, None, record).await.unwrap();
    }
    (all.into_iter().map(|(one, _)| one).collect(), whole)
}

async fn states(store: &Rigged) -> Vec<(onlyonce::core::KeyId, StateKind)> {
    let page = store.list(Filter { state: None, limit: 1_000 }, None).await.unwrap();
    page.records.into_iter().map(|(id, record)| (id, record.state.kind())).collect()
}

#[tokio::test(start_paused = true)]
async fn wherever_it_is_cut_off_the_floor_was_raised_before_and_it_can_be_done_again() {
    let world = World::new().await;
    let (keys, whole) = many(&world).await;
    let ran = world.outside.runs();
    for swaps in 0..=9 {
        for fault in [Fault::Refused, Fault::LostBack] {
            let after = world.beside(whole.copied().await).await;
            let faults = std::iter::repeat_n(fault, 1_000);
            after.store.faults.plan_swaps(std::iter::repeat_n(Fault::None, swaps).chain(faults));
            let cut = after.engine.restored(AHEAD, "anna", "a dump", &|_| {}).await;
            assert_eq!(cut.is_err(), swaps < 9, "{cut:?}");
            let floor = after.store.floor().await.unwrap();
            assert!(after.engine.now() < floor.time(), "the floor is raised first");
            // It is begun again by another process, on what there is by now.
            let (after, restored) = put_back(&world, after.store.copied().await).await;
            assert!(restored.made_unknown <= 6);
            assert!(floor <= restored.floor);
            let open: Vec<_> = states(&after.store).await;
            let unknown = open.iter().filter(|(_, kind)| *kind == StateKind::Unknown).count();
            assert_eq!((open.len(), unknown), (12, 9));
            for one in &keys {
                let again = ask(&after, one, &after.policy, seconds(0)).await;
                let is_kept = matches!(again, Answer::Replayed(_));
                assert!(is_kept || in_doubt(&again).is_some(), "{again:?}");
            }
            assert_eq!(world.outside.runs(), ran);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_made_unknown_says_why_and_can_be_settled() {
    let world = World::new().await;
    let one = request();
    let copy = ran(&world, &one, Was::Running).await;
    let (after, restored) = put_back(&world, copy).await;
    assert_eq!((restored.made_unknown, restored.damaged.len()), (1, 0));
    let record = after.engine.get(one.id).await.unwrap().unwrap();
    let last = record.history.entries().last().unwrap();
    assert_eq!((&*last.by, &*last.why), ("anna", "a dump"));
    let verdict = onlyonce::core::Verdict::Happened(Reply::kept(201, "seen"));
    let (policy, fence) = (after.policy, record.fence);
    let acted = after.engine.resolve(one.id, &policy, fence, verdict, "anna", "").await.unwrap();
    let stands = acted.record.unwrap().state;
    assert!(matches!(stands, State::Completed { .. }), "{stands:?}");
    assert_eq!(world.outside.runs(), 1);
}
