//! `/.well-known/idempotency`: what is promised, readable before an answer is lost.

use std::time::Duration;

use onlyonce_core::limits::{FOREVER, KEY_BYTES_MAX};
use onlyonce_core::{Class, Policy, Remedy};
use serde_json::{Value, json};

use crate::classify::ClassifyRules;
use crate::key::KeyPolicy;
use crate::route::RoutePolicy;

/// Where the document is served.
pub const PATH: &str = "/.well-known/idempotency";

/// The document over all routes, each with the path it is known by. Durations are in seconds.
pub fn document<'a>(routes: impl IntoIterator<Item = (&'a str, &'a RoutePolicy)>) -> Value {
    let routes: Vec<Value> = routes.into_iter().map(|(path, policy)| route(path, policy)).collect();
    json!({ "version": 1, "routes": routes })
}

fn route(path: &str, policy: &RoutePolicy) -> Value {
    let names = |names: &[http::HeaderName]| -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    };
    let methods: Vec<&str> = policy.methods.iter().map(http::Method::as_str).collect();
    let untimed = match policy.keys {
        KeyPolicy::Timed => "key-time-invalid",
        KeyPolicy::Optional | KeyPolicy::Required => "runs-as-new",
    };
    let forgotten = json!({ "timed": "key-expired", "untimed": untimed });
    let (remember, late) = if policy.record.remember == FOREVER {
        (json!("forever"), Value::Null)
    } else {
        (json!(seconds(policy.record.remember)), forgotten)
    };
    json!({
        "path": path,
        "methods": methods,
        "key": {
            "headers": names(&policy.key_names),
            "policy": policy.keys.name(),
            "format": policy.key_format.name(),
            "bytes_max": KEY_BYTES_MAX,
            "ahead_max_s": seconds(policy.key_ahead_max),
        },
        "scope": policy.scope.name(),
        "fingerprint": {
            "body": policy.fingerprint.body.name(),
            "headers": names(&policy.fingerprint.headers),
            "exclude": policy.fingerprint.exclude.to_string(),
        },
        "wait_s": policy.wait.as_secs_f64(),
        "retention_s": seconds(policy.record.retention),
        "remember_s": remember,
        "retention_from": "completion",
        "late_retry": {
            "after_retention": "reply-not-kept",
            "after_remember": late,
        },
        "body_bytes_max": policy.body_max,
        "reply_bytes_max": policy.reply_max,
        "over_reply_bytes_max": "reply-not-kept",
        "redacted": {
            "headers": names(&policy.redact.headers),
            "members": policy.redact.members.to_string(),
        },
        "on_unknown": policy.record.on_unknown.name(),
        "receiver": receiver(&policy.record),
        "on_store_error": policy.on_store_error.name(),
        "statuses": statuses(&policy.classify),
        "problems": policy.problem_base,
    })
}

/// What the service behind the route is declared to be, one class after the other as time passes,
/// each with what is done about an unknown outcome then, and what that guarantees.
fn receiver(policy: &Policy) -> Vec<Value> {
    let class = |class: Class| {
        // A run that is granted at the window's end could arrive too late.
        let window = policy.receiver.keyed.filter(|_| class == Class::Keyed);
        let remedy = policy.remedy(class);
        let guarantee = match remedy {
            Remedy::Hold => Class::Bare.guarantee(),
            Remedy::RunAgain | Remedy::Seal | Remedy::Probe => class.guarantee(),
        };
        json!({
            "class": class.name(),
            "until_s": window.map(|window| seconds(window.saturating_sub(policy.margin()))),
            "unknown": remedy.name(),
            "guarantee": guarantee,
        })
    };
    policy.receiver.classes().map(class).collect()
}

fn seconds(duration: Duration) -> u64 {
    duration.as_secs()
}

/// What is not recorded: what is released by default and by the route's own word.
fn statuses(rules: &ClassifyRules) -> Value {
    let list = |list: &[http::StatusCode]| -> Vec<u16> {
        list.iter().map(http::StatusCode::as_u16).collect()
    };
    json!({
        "released": [401, 403, 407, 408, 421, 425, 429, "503 with Retry-After"],
        "unknown": [502, "503 without Retry-After", 504],
        "completed": "all others",
        "overrides": {
            "completed": list(&rules.complete),
            "released": list(&rules.release),
            "unknown": list(&rules.unknown),
        },
    })
}

#[cfg(test)]
mod tests {
    use onlyonce_core::{OnUnknown, Receiver};

    use super::*;

    /// Case B66.
    #[test]
    fn the_window_of_a_key_can_be_read_before_it_is_used() {
        let policy = RoutePolicy::default();
        let document = document([("/payments", &policy)]);
        let route = &document["routes"][0];
        assert_eq!(route["path"], "/payments");
        assert_eq!(route["methods"], json!(["POST", "PATCH"]));
        assert_eq!(route["key"]["headers"], json!(["idempotency-key"]));
        assert_eq!(route["retention_s"], 86_400);
        assert_eq!(route["remember_s"], 30 * 86_400);
        assert_eq!(route["late_retry"]["after_remember"]["timed"], "key-expired");
        assert_eq!(route["late_retry"]["after_remember"]["untimed"], "runs-as-new");
        assert_eq!(route["fingerprint"]["body"], "structure");
        assert_eq!(route["scope"], "auto");
        let bare = json!([{
            "class": "bare",
            "until_s": null,
            "unknown": "hold",
            "guarantee": "at most once, and never silently",
        }]);
        assert_eq!((&route["on_unknown"], &route["receiver"]), (&json!("hold"), &bare));
    }

    #[test]
    fn what_is_remembered_for_ever_has_no_end_to_read() {
        let mut policy = RoutePolicy::default();
        policy.record.remember = FOREVER;
        let document = document([("/", &policy)]);
        assert_eq!(document["routes"][0]["remember_s"], "forever");
        assert_eq!(document["routes"][0]["late_retry"]["after_remember"], Value::Null);
    }

    #[test]
    fn what_the_receiver_offers_and_until_when_can_be_read() {
        let mut policy = RoutePolicy::default();
        let (day, minute) = (Duration::from_secs(86_400), Duration::from_secs(60));
        policy.record.receiver = Receiver::keyed(day).and_queryable(minute, minute);
        for (on_unknown, [first, then]) in [
            (OnUnknown::Auto, ["run again", "probe"]),
            (OnUnknown::Retry, ["run again", "hold"]),
            (OnUnknown::Probe, ["probe", "probe"]),
        ] {
            policy.record.on_unknown = on_unknown;
            let document = document([("/", &policy)]);
            let receiver = &document["routes"][0]["receiver"];
            // Less the lease, the clocks' difference, and what is late.
            assert_eq!(receiver[0]["until_s"], 86_400 - 30 - 1 - 60);
            assert_eq!(
                (&receiver[0]["class"], &receiver[1]["class"]),
                (&json!("keyed"), &json!("queryable"))
            );
            assert_eq!(
                (&receiver[0]["unknown"], &receiver[1]["unknown"]),
                (&json!(first), &json!(then))
            );
            assert_eq!(
                receiver[1]["guarantee"] == "at most once if its bounds hold",
                then == "probe"
            );
        }
    }
}
