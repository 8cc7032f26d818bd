//! The part of shared stores: an example of the binary's crate starts their servers and measures,
//! beside a bare client in the same round.

use super::journal::{self, Line};
use super::{Arguments, goals::Bound, goals::Goal};
use crate::{Failure, install};

/// The program that measures: package and example.
const PROGRAM: (&str, &str) = ("onlyonce-cli", "stores");
/// What each store is held against, and what a ratio is at least.
const BARE: [(&str, &str); 3] = [
    ("postgres", "PostgreSQL: pairs per second / array statements of a bare client"),
    ("mysql", "MariaDB: pairs per second / statements of many rows of a bare client"),
    ("redis", "Redis: pairs per second / the same two calls of a bare client"),
];
const RATIO: f64 = 0.7;

/// Measures all of them, or those that `--only` names.
pub(super) fn measure(arguments: &Arguments) -> Result<Vec<Line>, Failure> {
    install::run(&install::TEST_PACKAGES)?;
    let callers: Vec<String> = arguments.connections.iter().map(u32::to_string).collect();
    let mut more = vec!["--seconds".to_owned(), arguments.seconds.to_string()];
    more.extend(["--rounds".to_owned(), arguments.rounds.to_string()]);
    more.extend(["--callers".to_owned(), callers.join(",")]);
    if !arguments.only.is_empty() {
        more.extend(["--only".to_owned(), arguments.only.join(",")]);
    }
    journal::measure(PROGRAM, &more)
}

/// The goals of those that were measured; of all of them if nothing was.
pub(super) fn goals(lines: Option<&[Line]>) -> Vec<Goal> {
    let mut goals = Vec::new();
    for (name, what) in BARE {
        for callers in [1, 64, 256] {
            let is_it = |line: &&Line| line.name == name && line.callers == Some(callers);
            let found = lines.map(|lines| lines.iter().find(is_it));
            // Left out by `--only`.
            if found.is_some_and(|line| line.is_none()) {
                continue;
            }
            goals.push(Goal {
                what: format!("{what}, {callers} at once"),
                bound: Bound::AtLeast(RATIO),
                measured: found.flatten().and_then(|line| line.figure("ratio")),
            });
        }
    }
    goals
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Line, goals};

    #[test]
    fn each_store_that_was_measured_has_a_goal_for_each_number_of_callers() {
        assert!(goals(None).iter().all(|goal| goal.mark() == "not measured"));
        let line = |name: &str, callers, ratio| Line {
            name: name.to_owned(),
            callers: Some(callers),
            figures: BTreeMap::from([("ratio".to_owned(), ratio)]),
        };
        let lines = [line("redis", 1, 0.69), line("redis", 64, 0.7), line("etcd", 1, 9.0)];
        let marks: Vec<_> = goals(Some(&lines)).iter().map(|goal| goal.mark()).collect();
        assert_eq!(marks, ["**missed**", "met"]);
    }
}
