//! The cases that every shop passes.

use std::time::Duration;

use futures_util::future::join_all;
use onlyonce_core::{
    Always, ClaimId, Command, Fence, Floor, Next, OnUnknown, Policy, Receiver, Record, Revision,
    State, StateKind, Timestamp, decide,
};
use onlyonce_store::Swap;
use onlyonce_store::transaction::{MARK, NAMES, TxErrorKind};

use super::{Ask, End, Shop, Told, ordered};
use crate::claimed;

/// Cases B83 and B88. Whatever the isolation, at whichever door, and whether the key is new or was
/// released by an engine.
pub async fn fifty_at_once_with_one_key_run_it_once_and_all_get_its_answer(shop: &impl Shop) {
    let mut orders = 0;
    for (level, is_new) in (0..shop.levels()).flat_map(|it| [(it, true), (it, false)]) {
        orders += 1;
        let key = format!("order-{orders}");
        if !is_new {
            release(shop, &key).await;
        }
        let callers =
            (0..50).map(|at| ordered(shop, Ask { level, ..Ask::at(at % shop.doors(), &key) }));
        let told = join_all(callers).await;
        let ran: Vec<&String> = told.iter().filter_map(answer).collect();
        assert_eq!(ran.len(), 1, "{told:?}");
        let replayed = Told::Replayed(ran[0].clone());
        // Where others see what is not committed yet they are told so, and do not wait.
        let early = Told::Refused("in-flight".to_owned());
        let is_early = |it: &Told| shop.sees_what_is_not_committed(level) && *it == early;
        let others = told.iter().filter(|it| **it == replayed || is_early(it));
        assert_eq!(others.count(), 49, "{told:?}");
        assert_eq!((shop.counts().orders, shop.counts().records), (orders, orders));
    }
}

fn answer(told: &Told) -> Option<&String> {
    match told {
        Told::Ran(content) => Some(content),
        Told::Replayed(_) | Told::Refused(_) => None,
    }
}

/// Leaves a record as an engine does whose operation did not happen.
pub async fn release(shop: &impl Shop, key: &str) {
    let request = shop.request(key, key);
    let mut stands: Option<Record> = None;
    for _ in 0..2 {
        let release = |it: &Record| Command::Release { fence: it.fence, stranger: false };
        let claim = || request.claim(ClaimId::from_bytes([9; 16]));
        let command = stands.as_ref().map_or_else(claim, release);
        let before = stands.as_ref();
        let decision = decide(shop.now(), Floor::NONE, &Policy::default(), before, &command);
        let Next::Write(next) = decision.next else { panic!("{decision:?}") };
        let expected = before.map(|record| record.revision);
        let swap = shop.store().swap(request.id, expected, Some(next.clone())).await;
        assert_eq!(swap, Ok(Swap::Done));
        stands = Some(next);
    }
}

/// The rules are the same ones, and the records are.
pub async fn what_one_door_has_run_every_door_answers(shop: &impl Shop) {
    for first in 0..shop.doors() {
        let key = format!("door-{first}");
        let told = ordered(shop, Ask::at(first, &key)).await;
        let content = answer(&told).unwrap_or_else(|| panic!("{told:?}"));
        for door in 0..shop.doors() {
            let again = ordered(shop, Ask::at(door, &key)).await;
            assert_eq!(again, Told::Replayed(content.clone()), "door {door}");
        }
    }
    let doors = shop.doors() as u64;
    assert_eq!((shop.counts().orders, shop.counts().records), (doors, doors));
}

/// Case B83. A duplicate, then its answer, then something else, and all of it is committed.
pub async fn a_transaction_goes_on_after_a_duplicate(shop: &impl Shop) {
    let mut asked = 0;
    for (door, level) in (0..shop.doors()).flat_map(|it| (0..shop.levels()).map(move |l| (it, l))) {
        let key = format!("again-{door}-{level}");
        for is_first in [true, false] {
            let told = ordered(shop, Ask { level, ..Ask::at(door, &key) }).await;
            assert_eq!(matches!(told, Told::Ran(_)), is_first, "{told:?}");
            asked += 1;
            assert_eq!(shop.counts().visits, asked);
        }
    }
    assert_eq!(shop.counts().orders, asked / 2);
}

/// Case B18. Nothing is left that anybody would have to settle.
pub async fn what_is_rolled_back_has_left_no_record_and_runs_the_next_time(shop: &impl Shop) {
    for door in 0..shop.doors() {
        let key = format!("back-{door}");
        let before = shop.counts();
        let told = ordered(shop, Ask { end: End::RollBack, ..Ask::at(door, &key) }).await;
        assert!(matches!(told, Told::Ran(_)), "{told:?}");
        assert_eq!(shop.counts(), before);
        assert_eq!(shop.record(&key).await, None);
        let told = ordered(shop, Ask::at(door, &key)).await;
        assert!(matches!(told, Told::Ran(_)), "{told:?}");
        assert_eq!(shop.counts().orders, before.orders + 1);
    }
}

/// It must not run again by itself, since nobody has said that it did not happen.
pub async fn a_claim_that_is_committed_without_its_answer_becomes_unknown_and_never_free(
    shop: &impl Shop,
) {
    for door in 0..shop.doors() {
        let key = format!("half-{door}");
        half(shop, door, &key).await;
        for says in ["in-flight", "outcome-unknown"] {
            if says == "outcome-unknown" {
                lapse(shop, &key).await;
            }
            let told = ordered(shop, Ask::at(door, &key)).await;
            assert_eq!(told, Told::Refused(says.to_owned()));
        }
        let kind = shop.record(&key).await.map(|record| record.state.kind());
        assert_eq!(kind, Some(StateKind::Unknown));
    }
    assert_eq!(shop.counts().orders, shop.doors() as u64);
}

/// Leaves a claim that was committed without its completion.
async fn half(shop: &impl Shop, door: usize, key: &str) {
    let told = ordered(shop, Ask { end: End::CommitHalf, ..Ask::at(door, key) }).await;
    assert!(matches!(told, Told::Ran(_)), "{told:?}");
}

/// Moves the end of a claim's lease back, as if its time had passed.
async fn lapse(shop: &impl Shop, key: &str) {
    let policy = Policy::default();
    let mut record = shop.record(key).await.unwrap();
    let expected = record.revision;
    let State::InFlight(flight) = &mut record.state else { panic!("{record:?}") };
    flight.lease_until = flight.lease_until.minus(policy.lease + policy.skew_max);
    record.revision = Revision::after(Some(expected), Timestamp::from_millis(0));
    let swap = shop.store().swap(shop.id(key), Some(expected), Some(record)).await;
    assert_eq!(swap, Ok(Swap::Done));
}

/// Where every change under the key is in a transaction that completes it, nothing of it happened.
pub async fn where_the_policy_says_so_a_doubt_is_run_again(shop: &impl Shop) {
    let receiver = Receiver::always(Always::Transactional);
    let retry = Policy { on_unknown: OnUnknown::Retry, receiver, ..Policy::default() };
    for door in 0..shop.doors() {
        let key = format!("retry-{door}");
        half(shop, door, &key).await;
        lapse(shop, &key).await;
        let told = ordered(shop, Ask { policy: retry, ..Ask::at(door, &key) }).await;
        assert!(matches!(told, Told::Ran(_)), "{told:?}");
        let again = ordered(shop, Ask::at(door, &key)).await;
        assert_eq!(Some(again), answer(&told).map(|it| Told::Replayed(it.clone())));
    }
}

/// Its own answer would be wrong, and so would a second run.
pub async fn another_request_under_the_key_is_told_so(shop: &impl Shop) {
    for door in 0..shop.doors() {
        let key = format!("other-{door}");
        let told = ordered(shop, Ask::at(door, &key)).await;
        assert!(matches!(told, Told::Ran(_)), "{told:?}");
        let other = ordered(shop, Ask { content: "another one", ..Ask::at(door, &key) }).await;
        assert_eq!(other, Told::Refused("mismatch".to_owned()));
    }
    assert_eq!(shop.counts().orders, shop.doors() as u64);
}

/// A claim of an engine, completed with the order: whoever comes with an older claim, or a second
/// time, takes its order back.
pub async fn a_claim_from_outside_completes_once_and_only_if_it_is_the_latest(shop: &impl Shop) {
    for door in 0..shop.doors() {
        let key = format!("outside-{door}");
        let first = claimed(1);
        let swap = shop.store().swap(shop.id(&key), None, Some(first.clone())).await;
        assert_eq!(swap, Ok(Swap::Done));
        for other in [first.fence.get() - 1, first.fence.get() + 1] {
            let error = shop.complete(door, &key, Fence::new(other).unwrap()).await.unwrap_err();
            assert_eq!(error.kind(), TxErrorKind::Fenced, "{error}");
        }
        shop.complete(door, &key, first.fence).await.unwrap();
        // The same answer under the same fence is another order all the same.
        for door in 0..shop.doors() {
            let error = shop.complete(door, &key, first.fence).await.unwrap_err();
            assert_eq!(error.kind(), TxErrorKind::Fenced, "{error}");
        }
        let orders = door as u64 + 1;
        assert_eq!((shop.counts().orders, shop.counts().records), (orders, orders));
    }
}

/// A UUIDv7 of that time.
pub fn uuid(time: Timestamp) -> String {
    let hex = format!("{:012x}", time.as_millis());
    format!("{}-{}-7000-8000-000000000000", &hex[..8], &hex[8..])
}

/// What a sweeper does that has waited: the floor is above the key's time, and its record is gone.
pub async fn a_key_that_was_forgotten_is_expired_and_one_from_far_ahead_is_refused(
    shop: &impl Shop,
) {
    let mut time = shop.now().minus(Duration::from_secs(60));
    for door in 0..shop.doors() {
        time = time.plus_millis(10);
        let key = uuid(time);
        let told = ordered(shop, Ask::at(door, &key)).await;
        assert!(matches!(told, Told::Ran(_)), "{told:?}");
        shop.store().raise_floor(Floor::at(time.plus_millis(1))).await.unwrap();
        let record = shop.record(&key).await.unwrap();
        let swap = shop.store().swap(shop.id(&key), Some(record.revision), None).await;
        assert_eq!(swap, Ok(Swap::Done));
        let told = ordered(shop, Ask::at(door, &key)).await;
        assert_eq!(told, Told::Refused("expired".to_owned()));
        assert_eq!(shop.record(&key).await, None);

        let ahead = uuid(shop.now().plus(Duration::from_secs(310)));
        let error = shop.order(Ask::at(door, &ahead)).await.unwrap_err();
        assert_eq!(error.kind(), TxErrorKind::NotExecuted, "{error}");
        assert!(error.to_string().contains("ahead"), "{error}");
    }
    assert_eq!(shop.counts().orders, shop.doors() as u64);
}

/// Nobody may claim beside those who move a store; and no transaction can encrypt its answer.
pub async fn a_store_that_was_moved_or_is_encrypted_takes_no_claim(shop: &impl Shop) {
    for (id, says) in [(MARK, "was moved"), (NAMES, "are encrypted")] {
        let mark = claimed(1);
        let put = shop.store().swap(id, None, Some(mark.clone())).await;
        assert_eq!(put, Ok(Swap::Done));
        for door in 0..shop.doors() {
            let error = shop.order(Ask::at(door, "marked")).await.unwrap_err();
            assert_eq!(error.kind(), TxErrorKind::NotExecuted, "{error}");
            assert!(error.to_string().contains(says), "{error}");
        }
        let taken = shop.store().swap(id, Some(mark.revision), None).await;
        assert_eq!(taken, Ok(Swap::Done));
    }
    assert_eq!(shop.counts().orders, 0);
    assert_eq!(shop.record("marked").await, None);
}

/// A number that is used twice would let an older claim pass for a newer one.
pub async fn engines_that_begin_know_of_every_number_that_was_used(shop: &impl Shop) {
    for door in 0..shop.doors() {
        let key = format!("number-{door}");
        ordered(shop, Ask::at(door, &key)).await;
        let record = shop.record(&key).await.unwrap();
        let most = shop.store().revision_max().await.unwrap();
        assert!(record.revision.get() <= most, "door {door}: {most}");
    }
}
