//! Instants as text: HTTP dates for fields, RFC 3339 for bodies. Nothing here reads a clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use onlyonce_core::Timestamp;

/// The last second that four digits of a year can name.
const YEAR_9999_ENDS: u64 = 253_402_300_799;

/// The instant as an HTTP date (RFC 9110 section 5.6.7), in whole seconds, at most year 9999.
pub fn http_date(at: Timestamp) -> HeaderValue {
    crate::headers::value(&httpdate::fmt_http_date(system_time(at)))
}

/// Reads an HTTP date in any of its three forms, from 1970 on.
pub fn parse_http_date(text: &str) -> Option<Timestamp> {
    let at = httpdate::parse_http_date(text).ok()?;
    let since = at.duration_since(UNIX_EPOCH).ok()?;
    Some(Timestamp::from_millis(u64::try_from(since.as_millis()).ok()?))
}

fn system_time(at: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs((at.as_millis() / 1000).min(YEAR_9999_ENDS))
}

/// The instant in UTC as RFC 3339 with milliseconds, at most year 9999.
pub fn rfc3339(at: Timestamp) -> String {
    let seconds = (at.as_millis() / 1000).min(YEAR_9999_ENDS);
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    let millis = at.as_millis() % 1000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
///
/// Years are counted from March, so that the leap day ends one; 146,097 days are 400 years.
const fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_others_write_them() {
        for (millis, expect) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_123, "2000-02-29T00:00:00.123Z"),
            (4_107_542_399_000, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (1_795_600_800_000, "2026-11-25T10:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(Timestamp::from_millis(millis)), expect);
        }
        assert_eq!(&rfc3339(Timestamp::MAX)[..10], "9999-12-31");
    }

    #[test]
    fn an_http_date_reads_back_to_the_second() {
        let at = Timestamp::from_millis(784_111_777_900);
        let text = http_date(at);
        assert_eq!(text, "Sun, 06 Nov 1994 08:49:37 GMT");
        let read = parse_http_date(text.to_str().unwrap());
        assert_eq!(read, Some(Timestamp::from_millis(784_111_777_000)));
        assert_eq!(http_date(Timestamp::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(parse_http_date("yesterday"), None);
    }
}
