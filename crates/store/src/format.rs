//! Formats of a store's tables: which one is there, and whether this program knows it. Each kind of
//! store has a list of steps that make its tables, and a format is how many of them were taken.

use core::ops::Range;

use crate::check::{Checks, Need};
use crate::open::{OpenError, OpenErrorKind};

/// That this program knows the tables.
pub const FORMAT: Need = Need::new("format", "one that this program knows");

/// The format that a store's tables have, and the one that this program knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formats {
    /// What is there, from 1.
    pub found: i64,
    /// How many steps this program has.
    pub known: i64,
}

impl Formats {
    /// Whether nothing is to be done.
    pub const fn is_newest(self) -> bool {
        self.found == self.known
    }

    /// Whether a store may be opened with them.
    ///
    /// # Errors
    /// They are older, newer, or none; what to do about it is told.
    pub fn look(self, checks: &mut Checks) -> Result<(), OpenError> {
        let Self { found, known } = self;
        let (kind, fix) = match found {
            _ if found == known => {
                checks.good(FORMAT, found.to_string());
                return Ok(());
            }
            _ if known < found => (OpenErrorKind::Newer, "use a newer onlyonce"),
            1.. => (OpenErrorKind::Older, "`onlyonce store migrate` brings it up to that"),
            _ => (OpenErrorKind::Foreign, ""),
        };
        let why = format!("its format is {found}, and this program knows {known}");
        Err(checks.refuse(kind, FORMAT, found.to_string(), &why, fix))
    }

    /// The steps that are to be taken still, by their places in the list; none if it is the newest.
    ///
    /// # Errors
    /// The tables are newer, or none.
    pub fn missing(self, place: &str) -> Result<Range<usize>, OpenError> {
        let mut checks = Checks::at(place);
        match self.look(&mut checks) {
            Err(error) if error.kind() != OpenErrorKind::Older => Err(error),
            Ok(()) | Err(_) => {
                let step = |format: i64| usize::try_from(format).unwrap_or_default();
                Ok(step(self.found)..step(self.known))
            }
        }
    }
}

/// What is written beside functions in SQL, so that a later program knows whether they are its own.
pub fn mark(functions: &str) -> String {
    format!("onlyonce, text {:08x}", crc32c::crc32c(functions.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_format_is_told_from_a_newer_one_and_from_none() {
        let look = |found| {
            let mut checks = Checks::at("db");
            Formats { found, known: 3 }.look(&mut checks)
        };
        assert_eq!(look(3), Ok(()));
        for (found, kind, says) in [
            (4, OpenErrorKind::Newer, "use a newer onlyonce"),
            (2, OpenErrorKind::Older, "onlyonce store migrate"),
            (1, OpenErrorKind::Older, "this program knows 3"),
            (0, OpenErrorKind::Foreign, "its format is 0"),
            (-1, OpenErrorKind::Foreign, "its format is -1"),
        ] {
            let error = look(found).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn the_steps_above_a_format_are_taken_and_none_of_a_newer_one() {
        let missing = |found| Formats { found, known: 3 }.missing("db");
        assert_eq!(missing(1), Ok(1..3));
        assert_eq!(missing(2), Ok(2..3));
        assert_eq!(missing(3), Ok(3..3));
        assert!(missing(4).is_err());
        assert!(missing(0).is_err());
    }
}
