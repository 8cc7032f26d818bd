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
    use std::collections::BTreeMap;

    use super::{Rules, check};
    use crate::repo::SourceFile;

    fn rules() -> Rules {
        Rules {
            file_lines_max: 6,
            function_lines_max: 3,
            line_chars_max: 40,
            forbidden: vec!["/machine/".into()],
            long_lines: BTreeMap::new(),
            not_modules: BTreeMap::new(),
        }
    }

    /// What is found in a repository of one library and `text` as a module of it.
    fn found(text: &str) -> Vec<String> {
        let file = |path: &str, text: &str| SourceFile { path: path.into(), text: text.into() };
        let library = file("crates/a/src/lib.rs", "//! A library.\n\nmod part;\n");
        let files = [library, file("crates/a/src/part.rs", text)];
        check(&rules(), &files).unwrap().into_iter().map(|finding| finding.says).collect()
    }

    #[test]
    fn this_repository_is_tidy() {
        super::run().unwrap_or_else(|failure| panic!("{failure}"));
    }

    #[test]
    fn a_tidy_file_has_no_findings() {
        assert_eq!(found("//! A part.\n\nfn f() {\n    g();\n}\n"), [""; 0]);
    }

    #[test]
    fn each_rule_is_seen_to_fail() {
        let planted = [
            ("fn f() {}\n", "opens without"),
            ("//! A part.\nfn f() {\n1;\n2;\n}\n", "`f` has 4 lines"),
            ("//! A part.\nconst A: u8 = 1;\n\n\n// Why.\n/* a\nb\nc */\nfn f() {}\n", ""),
            ("//! A part.\na!();\na!();\na!();\na!();\na!();\na!();\na!();\n", "7 lines of code"),
            ("//! A line with more characters than it may have.\n", "line of 49"),
            ("//! Stands in /machine/x.\n", "forbidden"),
            (concat!("//! A part. TO", "DO\n"), "unfinished"),
            (concat!("//! A part.\n#[ig", "nore]\nfn f() {}\n"), "unfinished work"),
            (concat!("//! Sees `docs/", "gone.md`.\n"), "no such file"),
        ];
        for (text, says) in planted {
            let found = found(text);
            let wanted = usize::from(!says.is_empty());
            assert_eq!(found.len(), wanted, "{text} -> {found:?}");
            assert!(found.iter().all(|finding| finding.contains(says)), "{text} -> {found:?}");
        }
    }

    #[test]
    fn a_file_without_a_mod_is_dead() {
        let file = SourceFile { path: "crates/a/src/x.rs".into(), text: "//! A part.\n".into() };
        let found = check(&rules(), &[file]).unwrap();
        assert_eq!(found[0].says, "no `mod` reaches this file");
    }

    #[test]
    fn a_broken_link_is_found() {
        let text = "[gone](gone.md) and [here](Cargo.toml)\n";
        let page = SourceFile { path: "README.md".into(), text: text.into() };
        let found = check(&rules(), &[page]).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].says, "link to `gone.md`: no such file");
    }
}
