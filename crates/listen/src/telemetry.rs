//! Counts for operators, in the text format of Prometheus, and alarms in the log.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use onlyonce::{EngineEvent, Observer, Swept};

use crate::metrics::{CLOCK, COUNTERS, KEYS_MISSING, Metric, NOTICES, RISK, RUNNING, SECONDS};

/// Upper bounds of the histogram's buckets, in seconds.
const BOUNDS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// Clocks that differ by so many milliseconds are worth a line in the log.
const CLOCK_OFF: i64 = 500;

/// Counters of one proxy.
#[derive(Debug, Default)]
pub struct Telemetry {
    counts: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    buckets: [AtomicU64; BOUNDS.len()],
    requests: AtomicU64,
    micros: AtomicU64,
    /// By how much the store's clock is ahead of this machine's, in milliseconds.
    clock_offset: AtomicI64,
    /// Whether the store tells what other processes have ended.
    notices: AtomicBool,
    /// Keys that answers in the store may be encrypted with and that are not here.
    keys_missing: AtomicU64,
    /// What was said at the start that may be lost.
    risks: OnceLock<Vec<Taken>>,
    /// Requests being answered now.
    pub running: AtomicU64,
}

/// A risk that was taken when the store was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its name, by which it was taken.
    pub risk: &'static str,
    /// What may be lost, and where.
    pub why: String,
}

impl Telemetry {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<(&'static str, &'static str), u64>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more of a kind; `label` is empty for those without kinds.
    pub fn count(&self, name: &'static str, label: &'static str) {
        self.add(name, label, 1);
    }

    fn add(&self, name: &'static str, label: &'static str, more: u64) {
        *self.counts().entry((name, label)).or_default() += more;
    }

    /// A step of a change of keys has encrypted so many kept answers anew, and found so many that
    /// it cannot read.
    pub fn renewed(&self, renewed: u64, unread: usize) {
        self.add("onlyonce_reencrypted_total", "renewed", renewed);
        self.add("onlyonce_reencrypted_total", "unread", unread as u64);
    }

    /// Other processes encrypt answers with so many keys that this one does not have.
    pub fn keys_missing(&self, count: usize) {
        self.keys_missing.store(count as u64, Ordering::Relaxed);
    }

    /// The store's clock is so much ahead of this machine's, in milliseconds.
    fn clock(&self, offset: i64, uncertainty: Duration) {
        let before = self.clock_offset.swap(offset, Ordering::Relaxed);
        let (is_wrong, is_news) = (CLOCK_OFF <= offset.abs(), CLOCK_OFF <= (offset - before).abs());
        if is_wrong && is_news {
            let uncertain_ms = uncertainty.as_millis();
            tracing::warn!(
                offset_ms = offset,
                uncertain_ms,
                "this machine's clock and the store's differ; the store's counts"
            );
        }
    }

    /// The store is open with these risks, from now on.
    pub fn takes(&self, risks: Vec<Taken>) {
        for Taken { risk, why } in &risks {
            tracing::warn!(risk, why, "a risk is taken with this store");
        }
        let _ = self.risks.set(risks);
    }

    /// The risks with which the store is open.
    pub fn risks(&self) -> &[Taken] {
        self.risks.get().map_or(&[], Vec::as_slice)
    }

    /// A request was answered after `took`.
    pub fn answered(&self, took: Duration) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
        if let Some(at) = BOUNDS.iter().position(|bound| took.as_secs_f64() <= *bound) {
            self.buckets[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often something was counted; for tests.
    pub fn get(&self, name: &str, label: &str) -> u64 {
        let counts = self.counts();
        let found = counts.iter().find(|((it, its), _)| *it == name && *its == label);
        found.map_or(0, |(_, count)| *count)
    }

    /// All of it, as Prometheus reads it.
    pub fn render(&self) -> String {
        let mut page = String::new();
        let counts = self.counts();
        for metric in COUNTERS {
            let name = head(&mut page, metric, "counter");
            for ((_, label), count) in counts.iter().filter(|((it, _), _)| *it == name) {
                let label =
                    if label.is_empty() { String::new() } else { format!("{{kind=\"{label}\"}}") };
                let _ = writeln!(page, "{name}{label} {count}");
            }
        }
        drop(counts);
        let gauges = [
            (RUNNING, self.running.load(Ordering::Relaxed) as f64),
            (CLOCK, self.clock_offset.load(Ordering::Relaxed) as f64 / 1_000.0),
            (NOTICES, f64::from(u8::from(self.notices.load(Ordering::Relaxed)))),
            (KEYS_MISSING, self.keys_missing.load(Ordering::Relaxed) as f64),
        ];
        for (metric, value) in gauges {
            let name = head(&mut page, metric, "gauge");
            let _ = writeln!(page, "{name} {value}");
        }
        let name = head(&mut page, RISK, "gauge");
        let mut names: Vec<_> = self.risks().iter().map(|taken| taken.risk).collect();
        names.dedup();
        for risk in names {
            let _ = writeln!(page, "{name}{{risk=\"{risk}\"}} 1");
        }
        let name = head(&mut page, SECONDS, "histogram");
        let mut sum = 0;
        for (bound, bucket) in BOUNDS.iter().zip(&self.buckets) {
            sum += bucket.load(Ordering::Relaxed);
            let _ = writeln!(page, "{name}_bucket{{le=\"{bound}\"}} {sum}");
        }
        let requests = self.requests.load(Ordering::Relaxed);
        let seconds = Duration::from_micros(self.micros.load(Ordering::Relaxed)).as_secs_f64();
        let _ = writeln!(page, "{name}_bucket{{le=\"+Inf\"}} {requests}");
        let _ = writeln!(page, "{name}_sum {seconds}\n{name}_count {requests}");
        page
    }
}

/// Begins a metric; its name.
fn head(page: &mut String, (name, help, _): Metric, kind: &str) -> &'static str {
    let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
    name
}

impl Observer for Telemetry {
    fn on(&self, event: &EngineEvent) {
        match event {
            EngineEvent::Granted { .. } => self.count("onlyonce_claims_total", ""),
            EngineEvent::Completed { .. } => self.count("onlyonce_completed_total", ""),
            EngineEvent::Released { .. } => self.count("onlyonce_released_total", ""),
            EngineEvent::OutcomeUnknown { id, fence, cause } => {
                self.count("onlyonce_unknown_total", cause.name());
                let (fence, cause) = (fence.get(), cause.name());
                tracing::warn!(key = %id, fence, cause, "outcome unknown");
            }
            EngineEvent::SecondReply { id, fence } => {
                self.count("onlyonce_second_reply_total", "");
                let fence = fence.get();
                tracing::error!(key = %id, fence, "answered a second time, differently");
            }
            EngineEvent::Unrecorded { id, fence, error } => {
                self.count("onlyonce_unrecorded_total", "");
                let fence = fence.get();
                tracing::error!(key = %id, fence, %error, "an outcome could not be recorded");
            }
            EngineEvent::ReplyNotKept { id, .. } => {
                self.count("onlyonce_reply_not_kept_total", "");
                tracing::info!(key = %id, "recorded without the reply's content");
            }
            EngineEvent::HolderBuried { id } => {
                self.count("onlyonce_holders_buried_total", "");
                tracing::warn!(key = %id, "ended the claim of a process that is gone");
            }
            EngineEvent::Swept { swept } => {
                let Swept { ended, deleted, damaged } = *swept;
                self.add("onlyonce_swept_total", "ended", ended);
                self.add("onlyonce_swept_total", "deleted", deleted);
                if 0 < damaged {
                    tracing::error!(damaged, "records cannot be read; they stay");
                }
                tracing::debug!(ended, deleted, "swept");
            }
            EngineEvent::ClockStepped { by } => {
                self.count("onlyonce_clock_stepped_total", "");
                let seconds = by.as_secs();
                tracing::error!(
                    seconds,
                    "the system's clock was put forward and is not followed; if it is right, start \
                     again"
                );
            }
            EngineEvent::ClockMeasured { offset, uncertainty } => self.clock(*offset, *uncertainty),
            EngineEvent::NoticesFlow => {
                self.notices.store(true, Ordering::Relaxed);
                tracing::debug!("the store tells what other processes end");
            }
            EngineEvent::NoticesLost { why } => {
                self.notices.store(false, Ordering::Relaxed);
                self.count("onlyonce_notices_lost_total", "");
                tracing::info!(why, "the store tells nothing: those who wait look more often");
            }
            EngineEvent::Noticed { .. } => self.count("onlyonce_noticed_total", ""),
            EngineEvent::StoreFailed { error } => {
                self.count("onlyonce_store_failures_total", "");
                // What is damaged stays so until somebody sees to it.
                if error.is_damage() {
                    tracing::error!(%error, "what is stored cannot be read; it stays");
                } else {
                    tracing::debug!(%error, "a call of the store failed");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;
    use std::sync::Arc;

    use onlyonce::EngineError;
    use onlyonce::store::{StoreError, StoreErrorKind};
    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Level, Metadata, Subscriber};

    use super::*;

    /// A log of alarms.
    #[derive(Clone, Default)]
    struct Alarms(Arc<Mutex<String>>);

    impl Subscriber for Alarms {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            *metadata.level() == Level::ERROR
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn event(&self, event: &Event<'_>) {
            event.record(&mut self.clone());
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    impl Visit for Alarms {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            *self.0.lock().unwrap() += &format!("{field}={value:?} ");
        }
    }

    #[test]
    fn an_operator_sees_what_is_damaged_and_where() {
        for (kind, is_seen) in
            [(StoreErrorKind::Damaged, true), (StoreErrorKind::NotApplied, false)]
        {
            let alarms = Alarms::default();
            let error = StoreError::new(kind, "data/0000000007.old at byte 32896");
            let failed = EngineEvent::StoreFailed { error: EngineError::Store(error) };
            tracing::subscriber::with_default(alarms.clone(), || Telemetry::default().on(&failed));
            let seen = alarms.0.lock().unwrap().contains("data/0000000007.old at byte 32896");
            assert_eq!(seen, is_seen, "{kind:?}");
        }
    }
}
