//! Holders in other processes, who have a fence and no ticket.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use onlyonce::core::{Cause, ClaimId, Fence, Outcome, Phase, Reply, StateKind};
use onlyonce::{Acted, EngineEvent, Held, Settings, Waited};
use tokio::time::Instant;

use crate::support::*;

const ATTEMPT: ClaimId = ClaimId::from_bytes([1; 16]);
const OTHER: ClaimId = ClaimId::from_bytes([2; 16]);

async fn claim(shop: &Shop, phase: Phase, attempt: ClaimId) -> Outcome {
    shop.engine.claim_for(&request(), &policy(), phase, attempt).await.unwrap().outcome
}

async fn granted(shop: &Shop, phase: Phase, attempt: ClaimId) -> Fence {
    let outcome = claim(shop, phase, attempt).await;
    let Outcome::Granted(fence) = outcome else { panic!("{outcome:?}") };
    fence
}

fn held(shop: &Shop, fence: Fence) -> Held<'_> {
    shop.engine.held(request().id, policy(), fence)
}

fn buried(event: &EngineEvent) -> bool {
    matches!(event, EngineEvent::HolderBuried { .. })
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_was_lost_is_granted_the_same_fence_and_nobody_else() {
    let shop = Shop::open().await;
    let lost = granted(&shop, Phase::Committing, ATTEMPT).await;
    pass(seconds(20)).await;
    assert_eq!(claim(&shop, Phase::Committing, ATTEMPT).await, Outcome::Granted(lost));
    let other = claim(&shop, Phase::Committing, OTHER).await;
    assert!(matches!(other, Outcome::InFlight { .. }), "{other:?}");
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_not_taken_back_because_the_store_did_not_answer() {
    let shop = Shop::open().await;
    shop.store.fail_next(StateKind::InFlight, Fault::LateBack(seconds(60)));
    let asked = shop.engine.claim_for(&request(), &policy(), Phase::Committing, ATTEMPT).await;
    assert!(asked.is_err(), "{asked:?}");
    pass(seconds(25)).await;
    // Its holder asks again, and may run from now on: nobody has released it meanwhile.
    let fence = granted(&shop, Phase::Committing, ATTEMPT).await;
    pass(seconds(3)).await;
    assert_eq!(shop.state().await, Some(StateKind::InFlight));
    assert_eq!(held(&shop, fence).complete(confirmed()).await.unwrap().outcome, Outcome::Done);
}

#[tokio::test(start_paused = true)]
async fn a_holder_elsewhere_is_not_dead_because_this_process_began_anew() {
    for (phase, ends) in
        [(Phase::Prepared, StateKind::Released), (Phase::Committing, StateKind::Unknown)]
    {
        let store = Arc::new(FaultyStore::default());
        let before = Shop::open_on(store.clone(), Settings::default()).await;
        let fence = granted(&before, phase, ATTEMPT).await;
        let after = Shop::open_on(store, Settings::default()).await;
        assert_eq!(after.log.count(buried), 0);
        assert_eq!(claim(&after, phase, ATTEMPT).await, Outcome::Granted(fence));
        // Only its lease ends it.
        pass(seconds(32)).await;
        after.look().await;
        let renewed = held(&after, fence).renew().await.unwrap();
        assert_eq!(renewed.outcome, Outcome::Fenced, "{phase:?}");
        assert_eq!(renewed.record.unwrap().state.kind(), ends);
    }
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_slept_past_its_lease_may_still_say_that_it_happened_but_not_twice() {
    let shop = Shop::open().await;
    let fence = granted(&shop, Phase::Committing, ATTEMPT).await;
    pass(seconds(60)).await;
    assert!(matches!(shop.look().await, Outcome::OutcomeUnknown { cause: Cause::Lapsed, .. }));
    for _ in 0..2 {
        let acted = held(&shop, fence).complete(confirmed()).await.unwrap();
        assert_eq!(acted.outcome, Outcome::Done);
    }
    let alarms = |event: &EngineEvent| matches!(event, EngineEvent::SecondReply { .. });
    assert_eq!(shop.log.count(alarms), 0);
    let other = held(&shop, fence).complete(Reply::kept(201, "another order")).await.unwrap();
    assert_eq!((other.outcome, shop.log.count(alarms)), (Outcome::SecondReply, 1));
    assert!(matches!(shop.look().await, Outcome::Replay { reply, .. } if reply == confirmed()));
}

#[tokio::test(start_paused = true)]
async fn what_was_said_once_may_be_said_again() {
    let shop = Shop::open().await;
    let fence = granted(&shop, Phase::Prepared, ATTEMPT).await;
    let holder = held(&shop, fence);
    for _ in 0..2 {
        assert_eq!(holder.commit().await.unwrap().outcome, Outcome::Done);
        assert_eq!(holder.renew().await.unwrap().outcome, Outcome::Done);
    }
    for _ in 0..2 {
        assert_eq!(holder.release().await.unwrap().outcome, Outcome::Done);
    }
    let fence = granted(&shop, Phase::Committing, OTHER).await;
    for _ in 0..2 {
        assert_eq!(
            held(&shop, fence).abandon(Cause::TimedOut).await.unwrap().outcome,
            Outcome::Done
        );
    }
    let unknown = |event: &EngineEvent| matches!(event, EngineEvent::OutcomeUnknown { .. });
    assert!(0 < shop.log.count(unknown));
    // The first holder has nothing to say any more.
    assert_eq!(holder.renew().await.unwrap().outcome, Outcome::Fenced);
}

#[tokio::test(start_paused = true)]
async fn a_reply_without_room_is_answered_and_not_kept() {
    for brimming in [false, true] {
        let shop = Shop::open().await;
        let fence = granted(&shop, Phase::Committing, ATTEMPT).await;
        shop.store.brimming.store(brimming, SeqCst);
        shop.store.reply_max.store(if brimming { 0 } else { 4 }, SeqCst);
        let acted = held(&shop, fence).complete(confirmed()).await.unwrap();
        assert_eq!(acted.outcome, Outcome::Done);
        assert!(matches!(shop.look().await, Outcome::Gone { status: 201, sealed: false, .. }));
        let told = |event: &EngineEvent| matches!(event, EngineEvent::ReplyNotKept { .. });
        assert_eq!(shop.log.count(told), 1);
    }
}

/// Waits aside, and says what came of it and after how long.
fn waiting(shop: &Shop, wait: Duration) -> tokio::task::JoinHandle<(Acted, Duration)> {
    let (engine, begun) = (shop.engine.clone(), Instant::now());
    tokio::spawn(async move {
        let waited = engine.wait(&request(), &policy(), wait).await.unwrap();
        let (Waited::Ended { acted, .. } | Waited::StillRunning(acted)) = waited;
        (acted, begun.elapsed())
    })
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_woken_by_what_a_holder_elsewhere_says() {
    let shop = Shop::open().await;
    let fence = granted(&shop, Phase::Committing, ATTEMPT).await;
    let waiting = waiting(&shop, seconds(25));
    pass(seconds(5)).await;
    held(&shop, fence).complete(confirmed()).await.unwrap();
    let (acted, after) = waiting.await.unwrap();
    assert!(matches!(acted.outcome, Outcome::Replay { reply, .. } if reply == confirmed()));
    assert_eq!(after, seconds(5));
}

#[tokio::test(start_paused = true)]
async fn who_waits_learns_of_a_lapse_when_it_happens() {
    let shop = Shop::open().await;
    granted(&shop, Phase::Committing, ATTEMPT).await;
    let (acted, after) = waiting(&shop, seconds(600)).await.unwrap();
    assert!(matches!(acted.outcome, Outcome::OutcomeUnknown { .. }), "{acted:?}");
    assert!(after < seconds(40), "{after:?}");
}
