//! How many files this process may have open: every connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Handles of one caller in the worst case: its connection, and one to the upstream with a second
/// handle to look at it.
const PER_CALLER: u64 = 3;

/// Handles for all else: the journal, the ports, the log.
const OTHERS: u64 = 64;

/// Raises the number of files that this process may have open to what it may be raised to, and
/// returns how many callers that is enough for.
pub fn raise_open_files() -> usize {
    let now = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: now.maximum, maximum: now.maximum };
    let current = match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => now.maximum,
        Err(_) => now.current,
    };
    // Without a number there is no limit.
    let files = current.unwrap_or(u64::MAX);
    usize::try_from(files.saturating_sub(OTHERS) / PER_CALLER).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_that_may_be_had_are_had() {
        let callers = raise_open_files();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert!(callers as u64 <= limit.current.unwrap_or(u64::MAX) / PER_CALLER);
    }
}
