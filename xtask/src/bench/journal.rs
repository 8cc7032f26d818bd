//! The journal part: an example of the journal's crate measures, we read its lines.
//!
//! The example prints one JSON object per line. `name` and `callers` say which cell a line is;
//! every other number is a figure of it. Lines that are not objects are passed over, so that the
//! example may say what it is doing.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use crate::{Failure, process, repo};

/// One line of the example.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) callers: Option<u64>,
    /// Every other number, by its field.
    pub(super) figures: BTreeMap<String, f64>,
}

impl Line {
    /// A figure by its field.
    pub(super) fn figure(&self, field: &str) -> Option<f64> {
        self.figures.get(field).copied()
    }
}

/// The programs that measure: package and example.
pub(super) const PAIRS: (&str, &str) = ("onlyonce-journal", "pairs");
pub(super) const EXPIRY: (&str, &str) = ("onlyonce-cli", "expiry");

/// Runs an example in release mode, with these arguments beside.
pub(super) fn measure(
    (package, example): (&str, &str),
    more: &[String],
) -> Result<Vec<Line>, Failure> {
    super::build(&format!("-p {package} --example {example}"))?;
    let program = repo::root().join("target/release/examples").join(example);
    let mut command = Command::new(program);
    let (text, status) =
        process::output(command.arg("--json").args(more).current_dir(repo::root()))?;
    if !status.success() {
        return Err(format!("the example ended with {status}").into());
    }
    Ok(text.lines().filter_map(line).collect())
}

fn line(text: &str) -> Option<Line> {
    let Value::Object(fields) = serde_json::from_str(text).ok()? else { return None };
    let name = fields.get("name")?.as_str()?.to_owned();
    let callers = fields.get("callers").and_then(Value::as_u64);
    let figures = fields
        .iter()
        .filter(|(field, _)| field.as_str() != "callers")
        .filter_map(|(field, value)| Some((field.clone(), value.as_f64()?)))
        .collect();
    Some(Line { name, callers, figures })
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn a_line_is_read_tolerantly() {
        let text = r#"{"name":"pairs","callers":64,"pairs_per_s":1e4,"note":"warm","p99_ms":2}"#;
        let read = line(text).unwrap();
        assert_eq!((read.name.as_str(), read.callers), ("pairs", Some(64)));
        assert_eq!(read.figure("pairs_per_s"), Some(1e4));
        assert_eq!(read.figure("p99_ms"), Some(2.0));
        assert_eq!(read.figure("note"), None);
        assert!(line("loading 2 M records").is_none() && line("[1]").is_none());
    }
}
