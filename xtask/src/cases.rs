//! `docs/cases.md`: reports about other products, each with the tests that try it here.
//!
//! The list stands in `xtask/cases.toml`; tests name a case by a mark in their doc comment.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use serde::Deserialize;

use crate::{Failure, Outcome, repo};

const PAGE: &str = "docs/cases.md";

const HEAD: &str = "# Cases\n\n\
    Reports about other products that were made into tests, and where there is no test the \
    reason.\n\
    `cargo xtask docs` makes this page from `xtask/cases.toml` and the marks over tests.\n";

#[derive(Deserialize)]
struct List {
    kind: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    name: String,
    case: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    title: String,
    #[serde(default)]
    note: String,
}

/// Fails if the page is not what list and marks make it.
pub(crate) fn check() -> Outcome {
    if fs::read_to_string(repo::root().join(PAGE))? == page()? {
        Ok(())
    } else {
        Err(format!("{PAGE} is not what the marks over tests say: run `cargo xtask docs`").into())
    }
}

/// Writes the page.
pub(crate) fn write() -> Outcome {
    Ok(fs::write(repo::root().join(PAGE), page()?)?)
}

fn page() -> Result<String, Failure> {
    let list = fs::read_to_string(repo::root().join("xtask/cases.toml"))?;
    let list: List = toml::from_str(&list)?;
    let mut marks = marks()?;
    let mut page = HEAD.to_owned();
    for kind in &list.kind {
        write!(page, "\n## {}\n\n| case | goes wrong | tried by |\n|---|---|---|\n", kind.name)?;
        for Case { id, title, note } in &kind.case {
            let tests = marks.remove(id).unwrap_or_default();
            if tests.is_empty() && note.is_empty() {
                return Err(format!("case {id} has neither a test nor a note").into());
            }
            let cells = tests.iter().map(|test| format!("`{test}`"));
            let cells: Vec<_> = cells.chain((!note.is_empty()).then(|| note.clone())).collect();
            writeln!(page, "| {id} | {title} | {} |", cells.join("<br>"))?;
        }
    }
    if let Some((id, tests)) = marks.into_iter().next() {
        return Err(format!("{} names case {id}, which is not listed", tests.join(", ")).into());
    }
    Ok(page)
}

/// Each case that is marked, with the tests under its marks: file and function, or the name that a
/// test has in words.
fn marks() -> Result<BTreeMap<String, Vec<String>>, Failure> {
    let mut marks = BTreeMap::<String, Vec<String>>::new();
    for file in repo::text_files()? {
        let (mark, name): (_, fn(&str) -> Option<&str>) = match file.extension() {
            "rs" => ("/// Case", function),
            "ts" => ("// Case", in_words),
            _ if file.path == VECTORS => {
                for (id, name) in scenarios(&file.text)? {
                    marks.entry(id).or_default().push(format!("{}: {name}", file.path));
                }
                continue;
            }
            _ => continue,
        };
        let mut pending = Vec::new();
        for line in file.text.lines().map(str::trim_start) {
            if let Some(doc) = line.strip_prefix(mark) {
                pending.extend(ids(doc));
            } else if let Some(name) = name(line) {
                for id in pending.drain(..) {
                    marks.entry(id).or_default().push(format!("{}::{name}", file.path));
                }
            }
        }
    }
    Ok(marks)
}

/// What the clients of all languages run.
const VECTORS: &str = "clients/vectors.json";

#[derive(Deserialize)]
struct Vectors {
    once: Vec<Scenario>,
    send: Vec<Scenario>,
}

#[derive(Deserialize)]
struct Scenario {
    name: String,
    #[serde(default)]
    cases: Vec<String>,
}

/// The cases that scenarios name, each with the scenario's name.
fn scenarios(text: &str) -> Result<Vec<(String, String)>, Failure> {
    let Vectors { once, send } = serde_json::from_str(text)?;
    let all = once.into_iter().chain(send);
    let named = all.flat_map(|it| it.cases.into_iter().map(move |id| (id, it.name.clone())));
    Ok(named.collect())
}

/// The name of a test that is called with it, as in `test("...", `.
fn in_words(line: &str) -> Option<&str> {
    line.strip_prefix("test(\"")?.split('"').next()
}

/// The cases of a mark: `Case B01.`, `Cases B01, B02 and B03: ...`.
fn ids(mark: &str) -> Vec<String> {
    let end = mark.find([':', '.']).unwrap_or(mark.len());
    let words = mark[..end].split(|it: char| !it.is_ascii_alphanumeric());
    let is_id = |word: &&str| word.strip_prefix('B').is_some_and(|it| it.parse::<u32>().is_ok());
    words.filter(is_id).map(str::to_owned).collect()
}

fn function(line: &str) -> Option<&str> {
    let line = line.strip_prefix("pub ").unwrap_or(line);
    let line = line.strip_prefix("async ").unwrap_or(line);
    Some(line.strip_prefix("fn ")?.split(['(', '<']).next().unwrap_or_default())
}
