//! Starting: the claims of the dead are ended, and no number is used twice.

use std::sync::Arc;

use onlyonce::core::{
    Cause, Claim, ClaimId, Command, Floor, Holder, KeyId, Outcome, Phase, State, Timestamp,
};
use onlyonce::store::Store;
use onlyonce::{
    Answer, CLOCK_GAP_MAX, Claimed, Engine, EngineError, EngineEvent, Request, Settings,
};
use onlyonce_tokio::TokioRuntime;

use crate::common::{Rigged, World, id, order, request, seconds};

fn buried(event: &EngineEvent) -> bool {
    matches!(event, EngineEvent::HolderBuried { .. })
}

/// Claims in a process that then dies without a word.
async fn die_with_a_claim(world: &World, id: KeyId, phase: Phase) {
    let request = Request::new(id, request().fingerprint);
    let claimed = world.engine.claim(&request, &world.policy, phase).await.unwrap();
    let Claimed::Granted(ticket) = claimed else { panic!("refused") };
    std::mem::forget(ticket);
}

#[tokio::test(start_paused = true)]
async fn the_only_process_on_a_store_ends_the_claims_of_those_before_it() {
    let store = Arc::new(Rigged::new());
    let before = World::on(Arc::clone(&store), Settings::default()).await;
    let (prepared, committing) = (KeyId::from_bytes([2; 16]), KeyId::from_bytes([3; 16]));
    die_with_a_claim(&before, prepared, Phase::Prepared).await;
    die_with_a_claim(&before, committing, Phase::Committing).await;
    assert_eq!(before.order(seconds(0)).await.unwrap(), Answer::Reply(order(1)));

    let after = World::on(store, Settings::default()).await;
    assert_eq!(after.events.count(buried), 2);
    let state = |record: Option<onlyonce::core::Record>| record.unwrap().state;
    let released = state(after.engine.get(prepared).await.unwrap());
    assert!(matches!(released, State::Released { .. }), "{released:?}");
    let doubt = state(after.engine.get(committing).await.unwrap());
    assert!(matches!(doubt, State::Unknown(doubt) if doubt.cause == Cause::HolderDied));
    // What was answered before stays so.
    assert_eq!(after.order(seconds(0)).await.unwrap(), Answer::Replayed(order(1)));
    assert_eq!(after.outside.runs(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_shares_a_store_ends_nobodys_claim() {
    let store = Arc::new(Rigged::shared());
    let before = World::on(Arc::clone(&store), Settings::default()).await;
    let running = before.ordering(seconds(3)).await;
    let after = World::on(store, Settings::default()).await;
    assert_eq!(after.events.count(buried), 0);
    assert!(after.look().await.is_running());
    assert_eq!(running.await.unwrap().unwrap(), Answer::Reply(order(1)));
}

#[tokio::test(start_paused = true)]
async fn a_clock_behind_the_store_is_put_forward_to_it() {
    let store = Arc::new(Rigged::new());
    // A process whose clock was a day ahead has written here.
    let early = World::on(Arc::clone(&store), Settings::default()).await;
    let ahead = early.engine.now().plus(seconds(86_400));
    let claim = Claim {
        fingerprint: request().fingerprint,
        claim_id: ClaimId::from_bytes([9; 16]),
        holder: Holder::default(),
        key_time: None,
        credential: None,
        phase: Phase::Prepared,
    };
    let command = Command::Claim(claim);
    let (policy, other) = (early.policy, KeyId::from_bytes([9; 16]));
    let made = onlyonce::core::decide(ahead, Floor::NONE, &policy, None, &command);
    let onlyonce::core::Next::Write(record) = made.next else { panic!() };
    let revision = record.revision;
    store.swap(other, None, Some(record)).await.unwrap();

    let world = World::on(store, Settings::default()).await;
    assert!(Timestamp::from_millis(revision.get()) <= world.engine.now());
    let ticket = world.claimed(Phase::Prepared).await;
    assert!(revision.get() <= ticket.fence().get());
    ticket.release(false, None).await.unwrap();
    assert_eq!(world.look().await.outcome, Outcome::Absent);
    assert!(world.engine.get(id()).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_years_ahead_of_the_store_is_believed_only_if_somebody_says_so() {
    let store = Arc::new(Rigged::new());
    let before = World::on(Arc::clone(&store), Settings::default()).await;
    let runtime = Arc::new(TokioRuntime::new());
    assert_eq!(before.order(seconds(0)).await.unwrap(), Answer::Reply(order(1)));
    let start = |clock_is_right| {
        let store: Arc<dyn Store> = store.clone();
        let settings = Settings { clock_is_right, ..Settings::default() };
        Engine::start(store, runtime.clone(), settings, None)
    };
    tokio::time::advance(CLOCK_GAP_MAX - seconds(3_600)).await;
    assert!(start(false).await.is_ok());
    tokio::time::advance(seconds(86_400)).await;
    let doubted = start(false).await.map(|_| ());
    assert!(matches!(doubted, Err(EngineError::ClockDoubtful { .. })), "{doubted:?}");
    assert!(start(true).await.is_ok());
}
