//! Style that the compiler does not check. `xtask/tidy.toml` has the numbers and exceptions.
//!
//! Checks look at files and say where they are broken; none of them changes a file.

mod links;
mod modules;
mod rust;
mod scrub;
mod words;

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{Failure, Outcome, repo};

/// The numbers and exceptions.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    file_lines_max: usize,
    function_lines_max: usize,
    line_chars_max: usize,
    forbidden: Vec<String>,
    long_lines: BTreeMap<String, String>,
    not_modules: BTreeMap<String, String>,
}

/// A place that breaks a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    /// Counted from 1.
    line: usize,
    says: String,
}

impl Finding {
    fn new(path: &str, line: usize, says: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, says: says.into() }
    }
}

/// Checks every file of the repository.
pub(crate) fn run() -> Outcome {
    let rules: Rules = toml::from_str(&std::fs::read_to_string(repo::root().join(RULES))?)?;
    let findings = check(&rules, &repo::text_files()?)?;
    if findings.is_empty() {
        return Ok(());
    }
    let mut said = format!("{} places are not tidy", findings.len());
    for Finding { path, line, says } in findings {
        said.push_str(&format!("\n  {path}:{line}: {says}"));
    }
    Err(said.into())
}

const RULES: &str = "xtask/tidy.toml";

fn check(rules: &Rules, files: &[repo::SourceFile]) -> Result<Vec<Finding>, Failure> {
    let mut findings = Vec::new();
    for file in files {
        words::check(rules, file, &mut findings);
        match file.extension() {
            "rs" => {
                rust::check(rules, file, &mut findings);
                links::check_named(file, &mut findings);
            }
            "md" => {
                links::check(file, files, &mut findings);
                links::check_named(file, &mut findings);
            }
            _ => {}
        }
    }
    modules::check(rules, files, &mut findings);
    for listed in rules.long_lines.keys().chain(rules.not_modules.keys()) {
        if !files.iter().any(|file| file.path.starts_with(listed.as_str())) {
            findings.push(Finding::new(RULES, 1, format!("`{listed}` is excepted but not there")));
        }
    }
    findings.sort();
    Ok(findings)
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_repository_is_tidy() {
        super::run().unwrap_or_else(|failure| panic!("{failure}"));
    }
}
