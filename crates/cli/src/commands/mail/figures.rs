//! What the sender of a spool has counted, in a file beside the messages: for Prometheus, which
//! reads it as a text file, and for `onlyonce mail status`.

use std::io::{self, Write as _};
use std::path::Path;

use onlyonce_mail::Meter;
use serde::Serialize;
use tokio::time::{Duration, sleep};

use crate::alarms::Alarms;

/// Its name in the spool folder.
const NAME: &str = "metrics.prom";
const DOUBT: &str = "onlyonce_mail_doubt_seconds";
const SESSION: &str = "onlyonce_mail_session_seconds";
/// How often it is written.
const WRITE_EVERY: Duration = Duration::from_secs(5);

/// How long something took, for so many messages; in seconds, and each no less than it was.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Span {
    pub(super) messages: u64,
    pub(super) half_within: f64,
    /// 99 of 100.
    pub(super) most_within: f64,
}

/// What is known of the sender that wrote last.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Figures {
    /// From the mark to the answer: so long nobody knew.
    pub(super) in_doubt: Span,
    /// From the beginning to the answer.
    pub(super) session: Span,
}

/// Writes the file, in one step: whoever reads it finds the old one or the new one.
pub(super) fn write(spool: &Path, meter: &Meter, alarms: &Alarms) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(spool.join("tmp"))?;
    let mut page = meter.render();
    alarms.render(&mut page, "onlyonce_mail_second_reply_total", "");
    file.write_all(page.as_bytes())?;
    // Whoever collects figures may be another user.
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(readable)?;
    file.persist(spool.join(NAME)).map_err(|error| error.error)?;
    Ok(())
}

/// Writes it now and then, until this is dropped.
pub(super) async fn keep(spool: &Path, meter: &Meter, alarms: &Alarms) {
    loop {
        // Messages are sent without figures too.
        let _ = write(spool, meter, alarms);
        sleep(WRITE_EVERY).await;
    }
}

/// What the file says, if there is one.
pub(super) fn read(spool: &Path) -> Option<Figures> {
    let page = std::fs::read_to_string(spool.join(NAME)).ok()?;
    Some(Figures { in_doubt: span(&page, DOUBT)?, session: span(&page, SESSION)? })
}

/// `None` if there is none of it.
fn span(page: &str, name: &str) -> Option<Span> {
    let begins = format!("{name}_bucket{{le=\"");
    let bucket = |line: &str| {
        let (bound, count) = line.strip_prefix(&begins)?.split_once("\"} ")?;
        let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
        Some((bound, count.parse::<u64>().ok()?))
    };
    let buckets: Vec<(f64, u64)> = page.lines().filter_map(bucket).collect();
    let (_, messages) = *buckets.last()?;
    let within = |parts: u64| {
        let wanted = (messages * parts).div_ceil(100);
        buckets.iter().find(|(_, count)| wanted <= *count).map_or(f64::INFINITY, |(it, _)| *it)
    };
    (0 < messages).then(|| Span { messages, half_within: within(50), most_within: within(99) })
}

impl Span {
    /// For a person.
    pub(super) fn shown(&self) -> String {
        let within = |seconds: f64| match seconds {
            it if it.is_infinite() => "longer than all bounds".to_owned(),
            it if it < 1.0 => format!("within {} ms", it * 1_000.0),
            it => format!("within {it} s"),
        };
        format!("half {}, 99 of 100 {}", within(self.half_within), within(self.most_within))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_sender_has_counted_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("tmp")).unwrap();
        assert_eq!(read(folder.path()), None);
        let meter = Meter::default();
        write(folder.path(), &meter, &Alarms::default()).unwrap();
        assert_eq!(read(folder.path()), None, "there is none of it yet");
        for micros in [200, 400, 400, 9_000] {
            meter.doubt.note(Duration::from_micros(micros));
            meter.session.note(Duration::from_micros(micros * 10));
        }
        write(folder.path(), &meter, &Alarms::default()).unwrap();
        let Figures { in_doubt, session } = read(folder.path()).unwrap();
        assert_eq!(in_doubt, Span { messages: 4, half_within: 0.0005, most_within: 0.01 });
        assert_eq!(session.shown(), "half within 5 ms, 99 of 100 within 100 ms");
    }
}
