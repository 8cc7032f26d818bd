//! The documents of requests, as they are written in JSON. Unknown members are refused, so that a
//! misspelled one is not ignored.
//!
//! Each kind of value is a type (`value.rs`): what it accepts is what `docs/openapi.json` says.

mod answer;
mod read;
mod value;
mod word;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

pub(crate) use answer::{
    ClaimAnswer, DamagedView, Done, DoneWord, DoubtView, HistoryView, ListAnswer, RecordView,
    ReplyView, Stands, WaitAnswer,
};
pub(crate) use read::{Invalid, read};
pub(crate) use value::{
    AttemptId, Base64, EXACT_MAX, Id, KeyText, LEASE_LEAST, LEASE_MOST, MediaType, Number,
    PageMark, RETENTION_MOST, STATUS_MOST, ScopeName, Text, WAIT_MOST,
};
pub(crate) use word::{CauseWord, PhaseWord, StateWord, UnknownWord, VerdictWord};

/// To become the only one who may run the operation.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Claim {
    /// Whose key it is; needed if the caller has several scopes.
    pub(crate) scope: Option<ScopeName>,
    /// The key: one for each intended operation. A UUIDv7 is refused however late it comes back.
    pub(crate) key: KeyText,
    /// 128 random bits in hexadecimal, new for each attempt, never kept or used again: repeating
    /// the claim with them after a lost answer grants the same fence.
    pub(crate) claim_id: AttemptId,
    /// What tells this request from others, such as a digest of it. The same key with another
    /// fingerprint is refused.
    pub(crate) fingerprint: Text<1, 128>,
    /// How far the attempt is: `committing` (the default) if the operation may happen as soon as
    /// the claim is granted, `prepared` if `commit` is going to be said first.
    #[serde(default)]
    pub(crate) phase: PhaseWord,
    /// Who claims, for the log.
    pub(crate) holder: Option<Text<0, 128>>,
    /// When the operation was first wanted, in milliseconds since the Unix epoch: the time of a
    /// key that carries none. The same with every attempt.
    pub(crate) first_sent_ms: Option<Number<0, EXACT_MAX>>,
    /// How long the claim is exclusive without `renew`. Default: the scope's.
    pub(crate) lease_ms: Option<Number<LEASE_LEAST, LEASE_MOST>>,
    /// What the claim may do about an outcome that nobody knows: `hold` is always allowed, `retry`
    /// where the scope has it. Default: the scope's.
    pub(crate) on_unknown: Option<UnknownWord>,
}

/// The operation may happen from now on. Nothing that can take effect may be sent before this is
/// answered.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Commit {
    /// Whose key it is; needed if the caller has several scopes.
    pub(crate) scope: Option<ScopeName>,
    /// The key.
    pub(crate) key: KeyText,
    /// The claim that speaks.
    pub(crate) fence: Number<1, EXACT_MAX>,
    /// How long the claim is exclusive from now on. Default: the scope's.
    pub(crate) lease_ms: Option<Number<LEASE_LEAST, LEASE_MOST>>,
}

/// The holder is still at work.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Renew {
    /// Whose key it is; needed if the caller has several scopes.
    pub(crate) scope: Option<ScopeName>,
    /// The key.
    pub(crate) key: KeyText,
    /// The claim that speaks.
    pub(crate) fence: Number<1, EXACT_MAX>,
    /// How long the claim is exclusive from now on. Default: the scope's.
    pub(crate) lease_ms: Option<Number<LEASE_LEAST, LEASE_MOST>>,
}

/// What was learnt about the attempt, such as an external id: for whoever has to settle it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Note {
    /// Whose key it is; needed if the caller has several scopes.
    pub(crate) scope: Option<ScopeName>,
    /// The key.
    pub(crate) key: KeyText,
    /// The claim that speaks.
    pub(crate) fence: Number<1, EXACT_MAX>,
    /// What was learnt. The next claim forgets it.
    // 128 characters are at most the 512 bytes that a record keeps.
    pub(crate) evidence: Text<0, 128>,
}

/// It happened, and this is the reply.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Complete {
    /// Whose key it is; needed if the caller has several scopes.
    pub(crate) scope: Option<ScopeName>,
    /// The key.
    pub(crate) key: KeyText,
    /// The claim under which it happened; an older one is accepted too.
    pub(crate) fence: Number<1, EXACT_MAX>,
    /// What later claims of the key are answered.
    #[serde(default)]
    pub(crate) reply: ReplyGiven,
    /// How long the reply is kept. Default: the scope's.
    pub(crate) retention_ms: Option<Number<0, RETENTION_MOST>>,
}

/// It certainly did not happen under this claim and no longer can.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Release {
    /// Whose key it is; needed if the caller has several scopes.
    pub(crate) scope: Option<ScopeName>,
    /// The key.
    pub(crate) key: KeyText,
    /// The claim that speaks.
    pub(crate) fence: Number<1, EXACT_MAX>,
}

/// The holder cannot tell whether it happened.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Abandon {
    /// Whose key it is; needed if the caller has several scopes.
    pub(crate) scope: Option<ScopeName>,
    /// The key.
    pub(crate) key: KeyText,
    /// The claim that speaks.
    pub(crate) fence: Number<1, EXACT_MAX>,
    /// How knowledge was lost.
    #[serde(default)]
    pub(crate) cause: CauseWord,
}

/// To wait for the outcome of the attempt that runs. It never claims.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wait {
    /// Whose key it is; needed if the caller has several scopes.
    pub(crate) scope: Option<ScopeName>,
    /// The key.
    pub(crate) key: KeyText,
    /// As in the claim.
    pub(crate) fingerprint: Text<1, 128>,
    /// As in the claim.
    pub(crate) first_sent_ms: Option<Number<0, EXACT_MAX>>,
    /// How long at most; the service may answer earlier. Default: as long as the service waits.
    pub(crate) wait_ms: Option<Number<0, WAIT_MOST>>,
}

/// What is known of a key.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("anyOf" = key_or_id()))]
pub(crate) struct Get {
    /// Whose key it is; needed if the caller has several scopes.
    pub(crate) scope: Option<ScopeName>,
    /// The key.
    pub(crate) key: Option<KeyText>,
    /// Instead of the key, the id that `list` and logs show. For operators.
    pub(crate) id: Option<Id>,
}

/// A page of records, of all scopes. For operators.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct List {
    /// Only records in this state, as they were last written.
    pub(crate) state: Option<StateWord>,
    /// Only records that were answered a second time, differently. All are looked through for
    /// them, so that a page may hold fewer than `limit`, or none, and not be the last.
    #[serde(default)]
    pub(crate) alarm: bool,
    /// Where the page begins: `next` of the one before.
    pub(crate) after: Option<PageMark>,
    /// At most so many. Default 100.
    pub(crate) limit: Option<Number<1, 1000>>,
}

/// What somebody found out about an outcome that nobody knew. For operators.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "anyOf" = key_or_id(),
    "if" = { "required": ["reply"], "properties": { "reply": { "type": "object" } } },
    "then" = { "properties": { "verdict": { "const": "happened" } } }
))]
pub(crate) struct Resolve {
    /// Whose key it is; needed with `key` if there are several scopes.
    pub(crate) scope: Option<ScopeName>,
    /// The key; this or `id`.
    pub(crate) key: Option<KeyText>,
    /// The id that `list` and logs show.
    pub(crate) id: Option<Id>,
    /// The claim that was looked into: the verdict never hits a later one.
    pub(crate) fence: Number<1, EXACT_MAX>,
    /// What was found out.
    pub(crate) verdict: VerdictWord,
    /// What later claims are answered; with `happened` alone.
    pub(crate) reply: Option<ReplyGiven>,
    /// How long that reply is kept. Default: the scope's, else 24 h.
    pub(crate) retention_ms: Option<Number<0, RETENTION_MOST>>,
    /// Who found out, beside the caller's name; kept in the key's history.
    pub(crate) by: Option<Text<0, 128>>,
    /// Why they are sure; kept in the key's history, which cuts it at 256 bytes.
    pub(crate) why: Text<1, 256>,
}

/// This key must never run. For operators.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Seal {
    /// Whose key it is; needed if there are several scopes.
    pub(crate) scope: Option<ScopeName>,
    /// The key.
    pub(crate) key: KeyText,
    /// As in the claim.
    pub(crate) first_sent_ms: Option<Number<0, EXACT_MAX>>,
    /// Who seals it, beside the caller's name; kept in the key's history.
    pub(crate) by: Option<Text<0, 128>>,
    /// Why it must not run; kept in the key's history, which cuts it at 256 bytes.
    pub(crate) why: Text<1, 256>,
}

/// What this key was answered must not be kept. For operators.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("anyOf" = key_or_id()))]
pub(crate) struct Erase {
    /// Whose key it is; needed with `key` if there are several scopes.
    pub(crate) scope: Option<ScopeName>,
    /// The key; this or `id`.
    pub(crate) key: Option<KeyText>,
    /// The id that `list` and logs show.
    pub(crate) id: Option<Id>,
    /// Who has it erased, beside the caller's name; kept in the key's history.
    pub(crate) by: Option<Text<0, 128>>,
    /// Why; kept in the key's history, which cuts it at 256 bytes.
    pub(crate) why: Text<1, 256>,
}

/// A reply as a client gives it: a code, and content in one of three forms or none.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "if" = { "required": ["media_type"], "properties": { "media_type": { "type": "string" } } },
    "then" = { "required": ["base64"], "properties": { "base64": { "type": "string" } } },
    "allOf" = [
        { "not": both(&["json"], &["text"]) },
        { "not": both(&["json"], &["base64"]) },
        { "not": both(&[], &["text", "base64"]) },
    ]
))]
pub(crate) struct ReplyGiven {
    /// A code in the client's own meaning, such as an HTTP status or an exit code.
    #[serde(default = "ok")]
    pub(crate) status: Number<0, STATUS_MOST>,
    /// The media type of content in base64. Default `application/octet-stream`; content in JSON
    /// is `application/json`, and text is `text/plain; charset=utf-8`.
    pub(crate) media_type: Option<MediaType>,
    /// Content in JSON, any value, kept as it is spelled.
    #[serde(default, deserialize_with = "said")]
    #[schemars(with = "serde_json::Value")]
    pub(crate) json: Option<Box<RawValue>>,
    /// Content in text.
    pub(crate) text: Option<String>,
    /// Any content, in base64 (RFC 4648 section 4).
    pub(crate) base64: Option<Base64>,
}

/// In the schema: one of the two; a member that is `null` is not there.
fn key_or_id() -> Value {
    let one = |is: &str, other: &str| {
        json!({
            "required": [is],
            "properties": { is: { "type": "string" }, other: { "type": "null" } },
        })
    };
    json!([one("key", "id"), one("id", "key")])
}

/// In the schema: both are there. Only some are there as strings, and not if they are `null`.
fn both(values: &[&str], strings: &[&str]) -> Value {
    let is_string = strings.iter().map(|name| ((*name).to_owned(), json!({ "type": "string" })));
    let properties: Map<String, Value> = is_string.collect();
    let names = [values, strings].concat();
    json!({ "required": names, "properties": properties })
}

const fn ok() -> Number<0, STATUS_MOST> {
    Number(200)
}

impl Default for ReplyGiven {
    fn default() -> Self {
        Self { status: ok(), media_type: None, json: None, text: None, base64: None }
    }
}

/// `null` is a value like any other, not a member that is missing.
fn said<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(from).map(Some)
}
