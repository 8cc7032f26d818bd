//! What is counted and measured for operators, each with what it means and when it is an alarm:
//! for the page that Prometheus reads and for docs/metrics.md, which is written from it.

/// Of a metric: its name, what it means, and when somebody should look; empty for never.
pub(crate) type Metric = (&'static str, &'static str, &'static str);

/// What only grows.
pub(crate) const COUNTERS: [Metric; 20] = [
    ("onlyonce_requests_total", "Requests answered, by Idempotency-Status; none without one.", ""),
    (
        "onlyonce_problems_total",
        "Answers made here, by problem.",
        "`store-unavailable` or `record-damaged` grows, or another one faster than it used to",
    ),
    ("onlyonce_claims_total", "Claims granted.", ""),
    ("onlyonce_completed_total", "Answers recorded.", ""),
    ("onlyonce_released_total", "Claims that ended without the operation having happened.", ""),
    (
        "onlyonce_unknown_total",
        "Outcomes that became unknown, by cause.",
        "it grows: `onlyonce keys list --state unknown` shows what waits for somebody",
    ),
    (
        "onlyonce_unrecorded_total",
        "Outcomes that could not be recorded.",
        "it grows: a retry of such a key is told that nobody knows",
    ),
    (
        "onlyonce_second_reply_total",
        "Operations answered a second time, differently.",
        "it grows: an operation may have happened twice; `onlyonce keys list --alarm`",
    ),
    ("onlyonce_reply_not_kept_total", "Answers recorded without their content.", ""),
    ("onlyonce_holders_buried_total", "Claims of earlier processes ended at start.", ""),
    ("onlyonce_swept_total", "Records that the sweeper ended or deleted.", ""),
    (
        "onlyonce_reencrypted_total",
        "Kept answers encrypted anew, and those that could not be.",
        "`unread` grows: the key of these answers is missing",
    ),
    ("onlyonce_store_failures_total", "Calls of the store that failed.", "it goes on growing"),
    (
        "onlyonce_noticed_total",
        "Ends of attempts in other processes that the store has told of.",
        "",
    ),
    (
        "onlyonce_notices_lost_total",
        "Times that notices of the store stopped coming, or never came.",
        "",
    ),
    (
        "onlyonce_upstream_failures_total",
        "Requests without an answer of the upstream, by kind.",
        "it goes on growing",
    ),
    (
        "onlyonce_upstream_lost_on_reused_total",
        "Of those, unknown ones on a reused connection.",
        "it grows: the upstream may close idle connections sooner than the proxy does",
    ),
    (
        "onlyonce_clock_stepped_total",
        "Passes that found the clock put forward.",
        "it grows: the clock is not followed; if it is right, start again",
    ),
    ("onlyonce_service_requests_total", "Requests to the record service, by endpoint.", ""),
    (
        "onlyonce_anonymous_total",
        "Keyed requests without any credential.",
        "it grows where callers have credentials: those without count as one caller",
    ),
];

pub(crate) const RUNNING: Metric = ("onlyonce_requests_running", "Requests being answered.", "");
pub(crate) const CLOCK: Metric = (
    "onlyonce_clock_offset_seconds",
    "By how much the store's clock is ahead of ours.",
    "it is over 0.5 or under -0.5",
);
pub(crate) const NOTICES: Metric =
    ("onlyonce_notices_flow", "Whether the store tells what other processes end.", "");
pub(crate) const KEYS_MISSING: Metric = (
    "onlyonce_encryption_keys_missing",
    "Keys of answers that are not here.",
    "it is not 0: another process encrypts with a key that this one lacks",
);
pub(crate) const RISK: Metric = (
    "onlyonce_risk_accepted",
    "Risks that were taken with the store.",
    "it is there and nobody has decided so",
);
pub(crate) const SECONDS: Metric =
    ("onlyonce_request_seconds", "Time to the head of the answer.", "");

#[cfg(test)]
mod tests {
    use super::*;

    /// What no table can say.
    const OPENING: &str = "\
# Metrics

Written from crates/listen/src/metrics.rs; `cargo xtask docs` writes it again.

What the proxy tells at `/metrics` of its admin port ([config.md](config.md)) and the record
service at its own `/metrics`, to operators ([service.md](service.md)), in the text format of
Prometheus. What a counter counts *by* is its label `kind`; one that has counted nothing has no
line. Counters begin at zero with each process. Senders of mail and applies of plans write files:
[mail.md](mail.md), [provision.md](provision.md).

| metric | type | means | somebody should look when |
|---|---|---|---|
";

    fn page() -> String {
        let counters = COUNTERS.iter().map(|metric| (metric, "counter"));
        let gauges = [RUNNING, CLOCK, NOTICES, KEYS_MISSING, RISK];
        let gauges = gauges.iter().map(|metric| (metric, "gauge"));
        let row = |((name, means, alarm), kind): (&Metric, &str)| {
            format!("| `{name}` | {kind} | {means} | {alarm} |\n")
        };
        let rows: String = counters.chain(gauges).map(row).collect();
        format!("{OPENING}{rows}{}", row((&SECONDS, "histogram")))
    }

    #[test]
    fn the_page_of_metrics_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
        if std::env::var_os("ONLYONCE_BLESS").is_some() {
            std::fs::write(path, page()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(written == page(), "docs/metrics.md is old: run cargo xtask docs");
    }
}
