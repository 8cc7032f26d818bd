//! Quotas and limits.

use std::os::unix::fs::OpenOptionsExt as _;

use onlyonce_service::Config;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::world::*;

#[tokio::test]
async fn claims_over_the_quota_are_told_when_to_come_back_and_holders_may_always_speak() {
    let scopes = "[[scope]]\nname = \"orders\"\nclaims_per_second = 1\nclaims_burst = 2\n\
                  [[scope]]\nname = \"mails\"\n";
    let world = World::start(scopes).await;
    let (anna, bert) = (world.client(ANNA), world.client(BERT));
    let fence = granted(&anna, "tap 1", 1).await;
    granted(&anna, "tap 2", 2).await;
    let mut refused = 0;
    for number in 3..9 {
        let answer = bert.post("claim", &claim(&format!("tap {number}"), number)).await;
        if answer.status == 429 {
            answer.problem(429, "quota-exceeded");
            assert_eq!(answer.header("retry-after"), Some("1"));
            refused += 1;
        }
    }
    assert!(0 < refused);
    // What has happened can be said all the same, and other scopes have quotas of their own.
    anna.post("complete", &of("tap 1", fence)).await.ok();
    bert.post("claim", &with(claim("tap", 9), json!({ "scope": "mails" }))).await.ok();
}

#[tokio::test]
async fn only_so_many_wait_at_once() {
    let scopes = "[[scope]]\nname = \"orders\"\nwaits = 0\n[[scope]]\nname = \"mails\"\n";
    let world = World::start(scopes).await;
    let anna = world.client(ANNA);
    let answer = anna.post("wait", &json!({ "key": "tap", "fingerprint": "f" })).await;
    answer.problem(429, "quota-exceeded");
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_with_what_to_do() {
    let scopes = "[[scope]]\nname = \"orders\"\nreply_max = \"1KiB\"\n\
                  [[scope]]\nname = \"mails\"\nreply_max = \"1KiB\"\n";
    let world = World::start(scopes).await;
    let anna = world.client(ANNA);
    let fence = granted(&anna, "tap", 1).await;
    let reply = json!({ "reply": { "text": "x".repeat(100_000) } });
    let answer = anna.post("complete", &with(of("tap", fence), reply)).await;
    let problem = answer.problem(413, "body-too-large");
    assert!(problem["detail"].as_str().unwrap().contains("without content"), "{problem}");
    // Which is the way out.
    anna.post("complete", &of("tap", fence)).await.ok();
}

/// How often a condition is looked at before the test fails.
const LOOKS_MAX: u32 = 2_000;

/// A body of more than two thousand bytes that means nothing.
fn large() -> serde_json::Value {
    with(claim("tap", 1), json!({ "x": "y".repeat(2_000) }))
}

#[tokio::test]
async fn bodies_share_a_bounded_memory() {
    let mut config = config(SCOPES);
    config.limits.bodies = 4 << 10;
    let world = World::with(config).await;
    let anna = world.client(ANNA);
    // One that has sent most of its body holds the room.
    let mut holding = anna.connect().await;
    let request = anna.request("/v1/claim", &[b' '; 8 << 10]);
    holding.write_all(&request[..request.len() - (5 << 10)]).await.unwrap();
    let mut answer = anna.post("claim", &large()).await;
    for _ in 0..LOOKS_MAX {
        if answer.status == 503 {
            break;
        }
        answer.problem(400, "request-invalid");
        answer = anna.post("claim", &large()).await;
    }
    answer.problem(503, "no-room");
    drop(holding);
    for _ in 0..LOOKS_MAX {
        if anna.post("claim", &claim("tap", 1)).await.status == 200 {
            return;
        }
    }
    panic!("the room of who has gone is never given back");
}

#[tokio::test]
async fn what_a_request_asks_for_is_bounded_by_its_scope() {
    let scopes = "[[scope]]\nname = \"orders\"\nlease_max = \"1m\"\nretention = \"1h\"\n\
                  retention_max = \"2h\"\nkeys = \"timed\"\n[[scope]]\nname = \"mails\"\n";
    let world = World::start(scopes).await;
    let anna = world.client(ANNA);
    let ask = |more| with(claim("tap", 1), more);
    let untimed = anna.post("claim", &ask(json!({}))).await;
    untimed.problem(400, "key-time-invalid");
    let sent = json!({ "first_sent_ms": 1_700_000_000_000_u64 });
    for (more, field) in [
        (json!({ "lease_ms": 60_001 }), "lease_ms"),
        (json!({ "on_unknown": "retry" }), "on_unknown"),
    ] {
        let asked = with(ask(sent.clone()), more);
        let problem = anna.post("claim", &asked).await.problem(400, "request-invalid");
        assert_eq!(problem["field"], field);
    }
    let future = ask(json!({ "first_sent_ms": 9_000_000_000_000_000_u64 }));
    let problem = anna.post("claim", &future).await.problem(400, "key-time-invalid");
    assert_eq!(
        (&problem["field"], &problem["reuse_key"]),
        (&json!("first_sent_ms"), &json!("must_not"))
    );
    let asked = with(ask(sent), json!({ "lease_ms": 60_000 }));
    let fence = anna.post("claim", &asked).await.ok()["fence"].as_u64().unwrap();
    let long = with(of("tap", fence), json!({ "retention_ms": 7_200_001 }));
    let problem = anna.post("complete", &long).await.problem(400, "request-invalid");
    assert_eq!(problem["field"], "retention_ms");
    anna.post("complete", &with(of("tap", fence), json!({ "retention_ms": 0 }))).await.ok();
    anna.post("claim", &asked).await.problem(410, "reply-not-kept");
}

#[test]
fn mistakes_in_a_configuration_are_named_with_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "a-token-of-sixteen").unwrap();
    let open = format!(
        "[[caller]]\nname = \"a\"\ntoken_file = \"{}\"\noperator = true\n",
        token.display()
    );
    for (text, line, says) in [
        ("lisen = \"127.0.0.1:1\"\n", 1, "did you mean `listen`?"),
        ("listen = \"127.0.0.1:1\"\nunix = \"/x\"\n", 2, "there is a listen already"),
        ("[[scope]]\nname = \"a b\"\n", 2, "a scope is 1 to 64"),
        ("[[scope]]\nname = \"a\"\n[[scope]]\nname = \"a\"\n", 4, "already"),
        ("[[scope]]\nname = \"a\"\non_unknown = \"retry\"\n", 1, "the receiver never makes"),
        ("[[scope]]\nname = \"a\"\nretention_max = \"31d\"\n", 3, "longer than remember"),
        ("[[scope]]\nname = \"a\"\nclaims_burst = 3\n", 3, "only with claims_per_second"),
        ("[[scope]]\nname = \"a\"\nreply_max = \"1GiB\"\n", 3, "from \"0B\" to \"16MiB\""),
        ("[limits]\nwait_time = \"1h\"\n", 2, "from \"0s\" to \"10m\""),
        ("[[caller]]\nname = \"a\"\nscopes = [\"b\"]\n", 3, "no [[scope]] with the name"),
        ("[[caller]]\nname = \"a\"\n", 1, "may do nothing"),
        ("[[caller]]\nname = \"a\"\noperator = true\n", 1, "known by one of"),
        ("[[caller]]\nname = \"a\"\noperator = true\ntoken_sha256 = \"+f\"\n", 1, "64 hex"),
        (open.as_str(), 1, "others can read it"),
    ] {
        let error = Config::parse("serve.toml", text).map(|_| ()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("serve.toml:{line}:")), "{text}: {error}");
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn the_configuration_in_the_documents_is_valid_and_its_defaults_are_true() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/service.md");
    let page = std::fs::read_to_string(path).unwrap();
    let example = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    let open = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&token);
    std::io::Write::write_all(&mut open.unwrap(), b"a-token-of-sixteen").unwrap();
    let example = example.replace("/etc/onlyonce/orders.token", &token.display().to_string());
    let config = Config::parse("docs/service.md", &example).unwrap();
    assert_eq!(config.scopes.len(), 2);
    assert_eq!(config.warnings(), Vec::<String>::new());

    let (scope, limits) =
        (onlyonce_service::ScopeRule::new("a"), onlyonce_service::Limits::default());
    let seconds = |span: std::time::Duration| span.as_secs();
    for (row, default) in [
        ("`lease`, `lease_max`", format!("`\"30s\"`, `\"{}h\"`", seconds(scope.lease_max) / 3_600)),
        ("`waits`", format!("`{}`", scope.waits)),
        ("`reply_max`", format!("`\"{}MiB\"`", scope.reply_max >> 20)),
        ("`key_ahead_max`", format!("`\"{}m\"`", seconds(scope.key_ahead_max) / 60)),
        ("`waiters`", format!("`{}`", limits.waiters)),
        ("`bodies`", format!("`\"{}MiB\"`", limits.bodies >> 20)),
        ("`wait_time`", format!("`\"{}s\"`", seconds(limits.wait_time))),
        ("`drain_time`", format!("`\"{}s\"`", seconds(limits.drain_time))),
        ("`connections`, `streams`", format!("`{}`, `{}`", limits.connections, limits.streams)),
    ] {
        assert!(page.contains(&format!("| {row} | {default} |")), "{row} is {default}");
    }
}

#[test]
fn all_scopes_of_a_store_remember_for_as_long_as_the_one_that_does_so_longest() {
    let scopes = "[[scope]]\nname = \"orders\"\nremember = \"60d\"\n[[scope]]\nname = \"mails\"\n\
                  retention = \"1h\"\nremember = \"1h\"\n";
    let config = config(scopes);
    let days = std::time::Duration::from_secs(60 * 86_400);
    assert_eq!(config.sweeping().remember, days);
    assert!(config.scopes.iter().all(|scope| scope.policy.remember == days), "{config:?}");
    let alone = config_of_one_hour();
    assert_eq!(alone.sweeping().remember.as_secs(), 3_600);
    assert!(alone.sweeping().check().is_ok());
}

fn config_of_one_hour() -> onlyonce_service::Config {
    let text = "[[scope]]\nname = \"a\"\nretention = \"1h\"\nremember = \"1h\"\n";
    onlyonce_service::Config::parse("test.toml", text).unwrap()
}
