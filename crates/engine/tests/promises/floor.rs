//! The floor: a key that carries its time is never run once it may have been forgotten; and
//! older rules of fingerprints, which must not make a repeated request look new or different.

use std::sync::Arc;

use onlyonce::core::{Fingerprint, Floor, Outcome};
use onlyonce::store::Store;
use onlyonce::{Answer, FLOOR_AGE_MAX, Ran, Request, direct};

use crate::common::{World, order, request, seconds};

#[tokio::test(start_paused = true)]
async fn a_timed_key_below_the_floor_never_runs_and_an_untimed_one_does() {
    let world = World::new().await;
    let now = world.engine.now();
    world.store.raise_floor(Floor::at(now)).await.unwrap();
    // A floor may be used for so long; then it is read again.
    tokio::time::sleep(FLOOR_AGE_MAX + seconds(1)).await;
    let old = Request { key_time: Some(now.minus(seconds(1))), ..request() };
    let run = || direct(|_| async { Ran::Happened(order(99)) });
    let answer = world.engine.once(&old, &world.policy, seconds(1), run()).await.unwrap();
    assert_eq!(answer, Answer::Refused(Outcome::Expired));
    assert!(world.engine.get(old.id).await.unwrap().is_none());
    assert_eq!(world.order(seconds(0)).await.unwrap(), Answer::Reply(order(1)));
}

#[tokio::test(start_paused = true)]
async fn an_answer_found_below_the_floor_is_still_replayed() {
    let world = World::new().await;
    let now = world.engine.now();
    let timed = Request { key_time: Some(now), ..request() };
    let run = || direct(|_| async { Ran::Happened(order(3)) });
    let ask = || world.engine.once(&timed, &world.policy, seconds(1), run());
    assert_eq!(ask().await.unwrap(), Answer::Reply(order(3)));
    world.store.raise_floor(Floor::at(now.plus(seconds(1)))).await.unwrap();
    tokio::time::sleep(FLOOR_AGE_MAX + seconds(1)).await;
    assert_eq!(ask().await.unwrap(), Answer::Replayed(order(3)));
}

#[tokio::test(start_paused = true)]
async fn a_record_made_by_an_older_rule_is_found_by_it() {
    let world = World::new().await;
    assert_eq!(world.order(seconds(0)).await.unwrap(), Answer::Reply(order(1)));
    let older = request().fingerprint;
    for (by_old_rule, answer) in [
        (older, Answer::Replayed(order(1))),
        (Fingerprint::new(1, [5; 32]), Answer::Refused(Outcome::Mismatch)),
    ] {
        let by_rule = move |version| (version == 1).then_some(by_old_rule);
        let fingerprint = Fingerprint::new(2, [77; 32]);
        let newer = Request { fingerprint, refingerprint: Some(Arc::new(by_rule)), ..request() };
        let run = direct(|_| async { Ran::Happened(order(99)) });
        let told = world.engine.once(&newer, &world.policy, seconds(1), run).await.unwrap();
        assert_eq!(told, answer);
    }
}
