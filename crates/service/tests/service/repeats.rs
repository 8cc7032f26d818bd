//! Lost answers, holders that sleep, and fences.

use serde_json::{Value, json};

use crate::world::*;

/// Sends something and loses the answer; once it has taken effect, says the same again.
async fn said_twice(world: &World, name: &str, said: &Value, key: &str, state: &str) -> Value {
    let anna = world.client(ANNA);
    anna.post_and_leave(name, said).await;
    until_state(&anna, key, state).await;
    let again = anna.post(name, said).await.ok();
    assert_eq!(anna.post(name, said).await.ok()["state"], again["state"]);
    again
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_is_granted_the_same_fence() {
    let world = World::start(SCOPES).await;
    let anna = world.client(ANNA);
    anna.post_and_leave("claim", &claim("tap", 1)).await;
    let record = until_state(&anna, "tap", "in-flight").await;
    let answer = anna.post("claim", &claim("tap", 1)).await.ok();
    assert_eq!((&answer["outcome"], &answer["fence"]), (&json!("granted"), &record["fence"]));
    assert_eq!(answer["attempt"], 1);
    // It is no claim for anybody else.
    anna.post("claim", &claim("tap", 2)).await.problem(409, "request-in-progress");
}

#[tokio::test]
async fn whatever_a_holder_says_may_be_said_again_when_the_answer_was_lost() {
    let (world, shop) = (World::start(SCOPES).await, Shop::default());
    let anna = world.client(ANNA);
    let prepared = with(claim("tap", 1), json!({ "phase": "prepared" }));
    let fence = anna.post("claim", &prepared).await.ok()["fence"].as_u64().unwrap();
    let done = said_twice(&world, "commit", &of("tap", fence), "tap", "in-flight").await;
    assert_eq!(done["phase"], "committing");
    said_twice(&world, "renew", &of("tap", fence), "tap", "in-flight").await;
    let note = with(of("tap", fence), json!({ "evidence": "ch_1" }));
    said_twice(&world, "note", &note, "tap", "in-flight").await;
    let complete = with(of("tap", fence), json!({ "reply": shop.order() }));
    let done = said_twice(&world, "complete", &complete, "tap", "completed").await;
    assert_eq!((&done["happened"], &done["kept"]), (&json!("yes"), &json!(true)));
    let record = until_state(&anna, "tap", "completed").await;
    assert_eq!(record["evidence"], "ch_1");
    assert_eq!(shop.orders(), 1);

    let fence = granted(&anna, "none", 1).await;
    let done = said_twice(&world, "release", &of("none", fence), "none", "released").await;
    assert_eq!(done["happened"], "no");

    let fence = granted(&anna, "lost", 1).await;
    let abandon = with(of("lost", fence), json!({ "cause": "timed-out" }));
    said_twice(&world, "abandon", &abandon, "lost", "unknown").await;
    let problem = anna.post("claim", &claim("lost", 2)).await.problem(409, "outcome-unknown");
    assert_eq!((&problem["cause"], &problem["fence"]), (&json!("timed-out"), &json!(fence)));
    assert_eq!((&problem["who"], &problem["happened"]), (&json!("attempt"), &json!("unknown")));
    assert_eq!(problem["retryable"], false);
}

#[tokio::test]
async fn what_operators_say_may_be_said_again_too() {
    let world = World::start(SCOPES).await;
    let (anna, olga) = (world.client(ANNA), world.client(OLGA));
    let fence = granted(&anna, "lost", 1).await;
    anna.post("abandon", &of("lost", fence)).await.ok();
    let verdict = json!({ "verdict": "not-executed", "why": "no charge at the bank" });
    let verdict = with(of("lost", fence), verdict);
    let seal = json!({ "scope": "orders", "key": "never", "why": "cancelled" });
    let paid = granted(&anna, "paid", 1).await;
    anna.post("complete", &of("paid", paid)).await.ok();
    let erase = json!({ "scope": "orders", "key": "paid", "why": "asked for by its owner" });
    for (name, said, key, state) in [
        ("resolve", verdict, "lost", "released"),
        ("seal", seal, "never", "completed"),
        ("erase", erase, "paid", "completed"),
    ] {
        olga.post_and_leave(name, &said).await;
        until_state(&anna, key, state).await;
        for _ in 0..2 {
            assert_eq!(olga.post(name, &said).await.ok()["state"], state);
        }
    }
}

#[tokio::test]
async fn a_holder_that_slept_past_its_lease_has_happened_for_good_and_only_once() {
    let (world, shop) = (World::start(HASTY).await, Shop::default());
    let anna = world.client(ANNA);
    let fence = granted(&anna, "tap", 1).await;
    let order = shop.order();
    until_state(&anna, "tap", "unknown").await;
    anna.post("renew", &of("tap", fence)).await.problem(409, "fenced");
    anna.post("claim", &claim("tap", 2)).await.problem(409, "outcome-unknown");
    // It wakes up and says what it did.
    let complete = with(of("tap", fence), json!({ "reply": order }));
    assert_eq!(anna.post("complete", &complete).await.ok()["state"], "completed");
    assert_eq!(anna.post("claim", &claim("tap", 2)).await.ok()["reply"]["json"]["order"], 7_829);
    // Another answer to the same operation is an alarm, and changes nothing.
    let other = with(of("tap", fence), json!({ "reply": { "status": 500 } }));
    let problem = anna.post("complete", &other).await.problem(409, "second-reply");
    assert_eq!((&problem["happened"], &problem["who"]), (&json!("yes"), &json!("caller")));
    assert_eq!(world.telemetry.get("onlyonce_second_reply_total", ""), 1);
    assert_eq!(anna.post("claim", &claim("tap", 2)).await.ok()["reply"]["status"], 201);
    assert_eq!(shop.orders(), 1);
}

#[tokio::test]
async fn a_prepared_claim_that_lapses_frees_the_key_and_its_holder_may_send_nothing() {
    let world = World::start(HASTY).await;
    let anna = world.client(ANNA);
    let prepared = with(claim("tap", 1), json!({ "phase": "prepared" }));
    let fence = anna.post("claim", &prepared).await.ok()["fence"].as_u64().unwrap();
    let record = until_state(&anna, "tap", "released").await;
    assert_eq!(record["happened"], "no");
    let problem = anna.post("commit", &of("tap", fence)).await.problem(409, "fenced");
    assert_eq!(problem["state"], "released");
    // Nor once somebody else has it.
    let second = granted(&anna, "tap", 2).await;
    assert!(fence < second);
    let problem = anna.post("commit", &of("tap", fence)).await.problem(409, "fenced");
    assert_eq!(problem["fence"], second);
}

#[tokio::test]
async fn a_fence_is_that_of_this_key_or_nothing_is_done() {
    let world = World::start(SCOPES).await;
    let anna = world.client(ANNA);
    let fence = granted(&anna, "tap", 1).await;
    for name in ["commit", "renew", "release", "abandon", "complete"] {
        anna.post(name, &of("tap", fence + 1_000_000)).await.problem(409, "fence-invalid");
        let problem = anna.post(name, &of("other", fence)).await.problem(404, "no-record");
        assert_eq!(problem["happened"], "unknown");
    }
    assert_eq!(until_state(&anna, "tap", "in-flight").await["fence"], fence);
}

#[tokio::test]
async fn a_release_out_of_a_doubt_does_not_lift_it() {
    let scopes = "[[scope]]\nname = \"orders\"\non_unknown = \"retry\"\n\
                  receiver = { always = \"fenced\" }\n[[scope]]\nname = \"mails\"\n";
    let world = World::start(scopes).await;
    let anna = world.client(ANNA);
    let first = granted(&anna, "tap", 1).await;
    anna.post("abandon", &of("tap", first)).await.ok();
    // The claim may ask for less than the scope allows.
    let held = with(claim("tap", 2), json!({ "on_unknown": "hold" }));
    anna.post("claim", &held).await.problem(409, "outcome-unknown");
    let again = anna.post("claim", &claim("tap", 2)).await.ok();
    assert_eq!(again["doubt"]["cause"], "abandoned");
    assert_eq!(again["attempt"], 2);
    let second = again["fence"].as_u64().unwrap();
    let done = anna.post("release", &of("tap", second)).await.ok();
    assert_eq!((&done["state"], &done["happened"]), (&json!("unknown"), &json!("unknown")));
}

/// A client can know whether to ask again, or to call for somebody.
#[tokio::test]
async fn who_asks_is_told_whether_the_next_claim_runs_it_again() {
    let retry = "[[scope]]\nname = \"orders\"\non_unknown = \"retry\"\n\
                 receiver = { keyed = \"23h\" }\n[[scope]]\nname = \"mails\"\n";
    for (scopes, again) in [(retry, true), (SCOPES, false)] {
        let world = World::start(scopes).await;
        let anna = world.client(ANNA);
        let fence = granted(&anna, "tap", 1).await;
        let asked = json!({ "key": "tap" });
        assert!(anna.post("get", &asked).await.ok()["runs_again"].is_null());
        anna.post("abandon", &of("tap", fence)).await.ok();
        assert_eq!(anna.post("get", &asked).await.ok()["runs_again"], again);
        let claimed = anna.post("claim", &claim("tap", 2)).await;
        match again {
            true => drop(claimed.ok()),
            false => drop(claimed.problem(409, "outcome-unknown")),
        }
    }
}
