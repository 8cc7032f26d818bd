//! The log of a mail server, and from when to when it tells all.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use onlyonce_core::Timestamp;

use super::program;

/// The log and what was moved aside last (`FILE.1`), as they were when they were opened.
pub(super) struct Log {
    files: Vec<(File, u64)>,
}

/// From when to when a log tells all, by the lines of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    /// The times of the first line, and of the last one.
    ends: Option<[String; 2]>,
}

impl Log {
    /// Opens it.
    ///
    /// # Errors
    /// It cannot be opened; for a person.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let mut older = path.as_os_str().to_owned();
        older.push(".1");
        let open = |path: &Path| -> io::Result<(File, u64)> {
            let file = File::open(path)?;
            let length = file.metadata()?.len();
            Ok((file, length))
        };
        // The newer one first: if it is moved aside meanwhile, it is read twice and not missed.
        let newer = open(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let older = open(&PathBuf::from(older));
        // The older one need not be there, and if it cannot be read the span begins later.
        Ok(Self { files: older.into_iter().chain([newer]).collect() })
    }

    /// Reads all lines in their order; `is_ours` says of each whether the server wrote it.
    ///
    /// # Errors
    /// It cannot be read, or was cut off meanwhile.
    pub(super) async fn read<T: Send + 'static>(
        self,
        mut all: T,
        each: impl Fn(&mut T, &str) + Send + 'static,
        is_ours: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<(T, Span), String> {
        // A log may be large, and reading a file waits for the disk.
        let reading = tokio::task::spawn_blocking(move || {
            let mut span = Span::default();
            for (file, length) in self.files {
                let mut lines = BufReader::new(file.take(length));
                let (mut line, mut read) = (Vec::new(), 0);
                loop {
                    line.clear();
                    match lines.read_until(b'\n', &mut line).map_err(|it| it.to_string())? {
                        0 => break,
                        more => read += more as u64,
                    }
                    let line = String::from_utf8_lossy(&line);
                    let line = line.trim_end();
                    each(&mut all, line);
                    if is_ours(line) {
                        span.note(line);
                    }
                }
                if read < length {
                    return Err("the log was cut off while it was read".to_owned());
                }
            }
            Ok((all, span))
        });
        reading.await.map_err(|error| error.to_string())?
    }
}

impl Span {
    fn note(&mut self, line: &str) {
        let Some(time) = time(line) else { return };
        match &mut self.ends {
            Some([_, last]) if *last == time => {}
            Some([_, last]) => time.clone_into(last),
            None => self.ends = Some([time.to_owned(), time.to_owned()]),
        }
    }

    /// Whether it begins before a moment, and was written since: what then is not in it was not
    /// logged. A log that has ended, or that another server writes, says nothing.
    pub(super) async fn covers(&self, at: Timestamp) -> bool {
        let Some([first, last]) = &self.ends else { return false };
        let at = at.as_millis() / 1_000;
        // Lines have no fractions of seconds: the same second may be later.
        let begins = seconds(first).await.is_some_and(|first| first < at);
        begins && seconds(last).await.is_some_and(|last| at <= last)
    }
}

/// The time at the beginning of a line, as `date` reads it: `2026-11-27T20:26:37+00:00`,
/// `2026-11-27 20:26:37`, or without a year, as in `Nov 27 20:26:37`.
fn time(line: &str) -> Option<&str> {
    let first = line.bytes().next()?;
    let words = if !first.is_ascii_digit() {
        3
    } else if line.split(' ').next()?.contains('T') {
        1
    } else {
        2
    };
    let mut ends = line.match_indices(' ').map(|(at, _)| at);
    // A day of one digit has a second space before it.
    let doubled = usize::from(words == 3 && line.as_bytes().get(4) == Some(&b' '));
    let end = ends.nth(words - 1 + doubled)?;
    Some(&line[..end])
}

/// Seconds since 1970, by the system's own reading of its local time.
pub(super) async fn seconds(time: &str) -> Option<u64> {
    let date = async |arguments: &[&str]| {
        let arguments: Vec<_> = arguments.iter().map(Into::into).collect();
        program::line("date", &arguments).await.ok()
    };
    let read = async |text: &str| date(&["-d", text, "+%s"]).await?.parse::<u64>().ok();
    if time.starts_with(|it: char| it.is_ascii_digit()) {
        return read(time).await;
    }
    let now = date(&["+%s %Y"]).await?;
    let (now, year) = now.split_once(' ')?;
    let (now, year) = (now.parse::<u64>().ok()?, year.parse::<u32>().ok()?);
    match read(&format!("{time} {year}")).await? {
        // It was last year then: no line was written tomorrow.
        later if now + 24 * 60 * 60 < later => read(&format!("{time} {}", year - 1)).await,
        seconds => Some(seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_line_is_found_however_the_server_writes_it() {
        for (line, says) in [
            ("Nov 27 20:26:37 mx postfix/smtpd[7]: connect", "Nov 27 20:26:37"),
            ("Nov  7 20:26:37 mx postfix/smtpd[7]: connect", "Nov  7 20:26:37"),
            ("2026-11-27T20:26:37.1+01:00 mx postfix/smtpd[7]: x", "2026-11-27T20:26:37.1+01:00"),
            ("2026-11-27 20:26:37 1rXYZa-0001Kd-2B <= a", "2026-11-27 20:26:37"),
        ] {
            assert_eq!(time(line), Some(says));
        }
        assert_eq!(time(""), None);
        assert_eq!(time("Nov"), None);
    }

    fn span(lines: &[&str]) -> Span {
        let mut span = Span::default();
        lines.iter().for_each(|line| span.note(line));
        span
    }

    #[tokio::test]
    async fn a_log_tells_all_of_a_moment_between_its_ends() {
        let log = ["1970-01-02T00:00:00Z a", "1970-01-02T00:00:09Z b"];
        let at = |second: u64| Timestamp::from_millis((86_400 + second) * 1_000 + 500);
        for (second, covers) in [(0, false), (1, true), (9, true), (10, false)] {
            assert_eq!(span(&log).covers(at(second)).await, covers, "{second}");
        }
        assert!(!span(&[]).covers(at(1)).await);
        assert!(!span(&["then a", "1970-01-02T00:00:09Z b"]).covers(at(1)).await);
    }
}
