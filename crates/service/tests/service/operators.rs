//! What operators see and settle.

use serde_json::json;

use crate::world::*;

#[tokio::test]
async fn unknown_outcomes_are_listed_and_settled_and_the_history_says_by_whom() {
    let world = World::start(SCOPES).await;
    let (anna, olga) = (world.client(ANNA), world.client(OLGA));
    let mut fences = Vec::new();
    for number in 0..3 {
        let key = format!("lost {number}");
        let fence = granted(&anna, &key, number).await;
        anna.post("note", &with(of(&key, fence), json!({ "evidence": key }))).await.ok();
        anna.post("abandon", &with(of(&key, fence), json!({ "cause": "answer-cut" }))).await.ok();
        fences.push(fence);
    }
    granted(&anna, "running", 9).await;
    let mut seen = Vec::new();
    let mut asked = json!({ "state": "unknown", "limit": 2 });
    loop {
        let page = olga.post("list", &asked).await.ok();
        for record in page["records"].as_array().unwrap() {
            assert_eq!(record["doubt"]["cause"], "answer-cut");
            seen.push((record["evidence"].as_str().unwrap().to_owned(), record["id"].clone()));
        }
        let Some(next) = page.get("next") else { break };
        asked["after"] = next.clone();
    }
    seen.sort_by_key(|(evidence, _)| evidence.clone());
    let evidence: Vec<&str> = seen.iter().map(|(evidence, _)| evidence.as_str()).collect();
    assert_eq!(evidence, ["lost 0", "lost 1", "lost 2"]);

    let verdict = |at: usize, more| {
        with(json!({ "id": seen[at].1, "fence": fences[at], "why": "seen", "by": "olga" }), more)
    };
    let happened = json!({ "verdict": "happened", "reply": { "status": 201, "text": "7829" } });
    olga.post("resolve", &verdict(0, happened)).await.ok();
    olga.post("resolve", &verdict(1, json!({ "verdict": "not-executed" }))).await.ok();
    let answer = olga.post("resolve", &verdict(2, json!({ "verdict": "run-again" }))).await;
    assert_eq!(answer.ok()["happened"], "unknown");

    assert_eq!(anna.post("claim", &claim("lost 0", 5)).await.ok()["reply"]["text"], "7829");
    assert_eq!(anna.post("claim", &claim("lost 1", 5)).await.ok()["outcome"], "granted");
    let record = anna.post("get", &json!({ "key": "lost 1" })).await.ok();
    assert_eq!((&record["attempt"], &record["runs_authorised"]), (&json!(2), &json!(1)));
    let entry = &record["history"][0];
    assert_eq!(entry["event"], "resolved-not-executed");
    assert_eq!((&entry["by"], &entry["why"]), (&json!("olga: olga"), &json!("seen")));
    // A verdict on a claim that is over hits no later one.
    let late = verdict(1, json!({ "verdict": "not-executed" }));
    olga.post("resolve", &late).await.problem(409, "fenced");
}

#[tokio::test]
async fn a_sealed_key_never_runs_and_what_ran_cannot_be_sealed() {
    let world = World::start(SCOPES).await;
    let (anna, olga) = (world.client(ANNA), world.client(OLGA));
    let seal = |key: &str| json!({ "scope": "orders", "key": key, "why": "cancelled" });
    olga.post("seal", &seal("never")).await.ok();
    let problem = anna.post("claim", &claim("never", 1)).await.problem(410, "key-sealed");
    assert_eq!(problem["happened"], "no");

    let fence = granted(&anna, "ran", 1).await;
    olga.post("seal", &seal("ran")).await.problem(409, "request-in-progress");
    anna.post("complete", &of("ran", fence)).await.ok();
    let problem = olga.post("seal", &seal("ran")).await.problem(409, "fenced");
    assert_eq!((&problem["happened"], &problem["state"]), (&json!("yes"), &json!("completed")));

    let fence = granted(&anna, "lost", 1).await;
    anna.post("abandon", &of("lost", fence)).await.ok();
    olga.post("seal", &seal("lost")).await.problem(409, "outcome-unknown");
}

#[tokio::test]
async fn what_was_answered_twice_is_on_the_list_of_alarms_and_nothing_else_is() {
    let world = World::start(SCOPES).await;
    let (anna, olga) = (world.client(ANNA), world.client(OLGA));
    let complete = |key: &str, fence: u64, text: &str| {
        with(of(key, fence), json!({ "reply": { "status": 201, "text": text } }))
    };
    let mut fences = Vec::new();
    for number in 0..5 {
        let key = format!("order {number}");
        let fence = granted(&anna, &key, number).await;
        anna.post("complete", &complete(&key, fence, "7829")).await.ok();
        fences.push(fence);
    }
    for _again in 0..3 {
        let other = complete("order 3", fences[3], "7830");
        anna.post("complete", &other).await.problem(409, "second-reply");
    }
    let (mut found, mut asked) = (Vec::new(), json!({ "alarm": true, "limit": 2 }));
    loop {
        let page = olga.post("list", &asked).await.ok();
        found.extend(page["records"].as_array().unwrap().clone());
        let Some(next) = page.get("next") else { break };
        asked["after"] = next.clone();
    }
    let [record] = &found[..] else { panic!("{found:?}") };
    assert_eq!((&record["alarm"], &record["state"]), (&json!(true), &json!("completed")));
    let [entry] = &record["history"].as_array().unwrap()[..] else { panic!("{record}") };
    assert_eq!((&entry["event"], &entry["fence"]), (&json!("second-reply"), &json!(fences[3])));
    let shown = anna.post("get", &json!({ "key": "order 3" })).await.ok();
    assert_eq!((&shown["id"], &shown["reply"]["text"]), (&record["id"], &json!("7829")));
    let plain = anna.post("get", &json!({ "key": "order 1" })).await.ok();
    assert_eq!(plain.get("alarm"), None);
}

#[tokio::test]
async fn an_erased_answer_is_gone_for_everybody_and_its_key_never_runs_again() {
    let world = World::start(SCOPES).await;
    let (anna, olga) = (world.client(ANNA), world.client(OLGA));
    let erase = |key: &str| json!({ "scope": "orders", "key": key, "by": "o", "why": "ticket 9" });
    olga.post("erase", &erase("never seen")).await.problem(404, "no-record");

    let fence = granted(&anna, "tap", 1).await;
    let problem = olga.post("erase", &erase("tap")).await.problem(409, "request-in-progress");
    assert_eq!(problem["happened"], "unknown");
    let reply = json!({ "reply": { "status": 201, "text": "card 4711" } });
    anna.post("complete", &with(of("tap", fence), reply)).await.ok();
    let done = olga.post("erase", &erase("tap")).await.ok();
    assert_eq!((&done["state"], &done["happened"]), (&json!("completed"), &json!("yes")));

    let problem = anna.post("claim", &claim("tap", 2)).await.problem(410, "reply-not-kept");
    assert_eq!((&problem["happened"], &problem["original_status"]), (&json!("yes"), &json!(201)));
    let record = anna.post("get", &json!({ "key": "tap" })).await.ok();
    assert!(!record.to_string().contains("4711"), "{record}");
    let entry = &record["history"][0];
    assert_eq!((&entry["event"], &entry["by"]), (&json!("erased"), &json!("olga: o")));

    let fence = granted(&anna, "lost", 1).await;
    anna.post("abandon", &of("lost", fence)).await.ok();
    olga.post("erase", &erase("lost")).await.problem(409, "outcome-unknown");
}
