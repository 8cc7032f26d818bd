//! How long messages take, and how long nobody knows: counted by a sender while it runs.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::sender::Became;

/// Upper bounds of the buckets, in microseconds.
const BOUNDS: [u64; 15] = [
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    5_000_000,
    30_000_000,
    600_000_000,
];
const MICROS: f64 = 1_000_000.0;

/// Times in buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    /// The last one is for what is longer than all bounds.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

/// What a sender counts. All of it is of one process.
#[derive(Debug, Default)]
pub struct Meter {
    /// From when the mark was durable to the answer that says that the message was taken: so long
    /// nobody knew.
    pub doubt: Histogram,
    /// The whole of it: from the first thing that was done for a message to that answer.
    pub session: Histogram,
    sent: AtomicU64,
    refused: AtomicU64,
    unknown: AtomicU64,
    waiting: AtomicU64,
}

impl Histogram {
    /// One more.
    pub fn note(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let at = BOUNDS.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[at].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Adds it to a page in the text format of Prometheus, in seconds.
    pub fn render(&self, page: &mut String, name: &str, help: &str) {
        let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} histogram");
        let mut count = 0;
        for (at, bucket) in self.buckets.iter().enumerate() {
            count += bucket.load(Ordering::Relaxed);
            let bound =
                BOUNDS.get(at).map_or("+Inf".to_owned(), |it| (*it as f64 / MICROS).to_string());
            let _ = writeln!(page, "{name}_bucket{{le=\"{bound}\"}} {count}");
        }
        let sum = self.micros.load(Ordering::Relaxed) as f64 / MICROS;
        let _ = writeln!(page, "{name}_sum {sum}\n{name}_count {count}");
    }
}

impl Meter {
    /// An attempt has ended so.
    pub(crate) fn ended(&self, became: &Became) {
        let count = match became {
            Became::Sent(_) => &self.sent,
            Became::Refused(_) => &self.refused,
            Became::Unknown(_) => &self.unknown,
            Became::Waiting(_) => &self.waiting,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// All of it, in the text format of Prometheus.
    pub fn render(&self) -> String {
        let mut page = String::new();
        let name = "onlyonce_mail_attempts_total";
        let _ = writeln!(page, "# HELP {name} Attempts, by what became of the message.");
        let _ = writeln!(page, "# TYPE {name} counter");
        for (kind, count) in [
            ("sent", &self.sent),
            ("refused", &self.refused),
            ("unknown", &self.unknown),
            ("waiting", &self.waiting),
        ] {
            let count = count.load(Ordering::Relaxed);
            let _ = writeln!(page, "{name}{{became=\"{kind}\"}} {count}");
        }
        let help = "From the durable mark to the answer: so long nobody knew.";
        self.doubt.render(&mut page, "onlyonce_mail_doubt_seconds", help);
        let help = "From the first thing done for a message to the answer.";
        self.session.render(&mut page, "onlyonce_mail_session_seconds", help);
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_in_all_buckets_that_it_fits_in() {
        let meter = Meter::default();
        for micros in [250, 251, 601_000_000] {
            meter.doubt.note(Duration::from_micros(micros));
        }
        meter.ended(&Became::Sent(String::new()));
        let page = meter.render();
        for line in [
            "onlyonce_mail_attempts_total{became=\"sent\"} 1",
            "onlyonce_mail_doubt_seconds_bucket{le=\"0.00025\"} 1",
            "onlyonce_mail_doubt_seconds_bucket{le=\"0.0005\"} 2",
            "onlyonce_mail_doubt_seconds_bucket{le=\"600\"} 2",
            "onlyonce_mail_doubt_seconds_bucket{le=\"+Inf\"} 3",
            "onlyonce_mail_doubt_seconds_count 3",
            "onlyonce_mail_session_seconds_count 0",
        ] {
            assert!(page.lines().any(|it| it == line), "{line}: {page}");
        }
    }
}
