//! Dependencies against `deny.toml`: by cargo-deny where it is installed, else by a smaller check.
//!
//! The smaller check reads the same file and covers licences, sources and banned names. It knows
//! no advisories, and says so.

use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

use crate::{Failure, Outcome, repo, steps};

/// The parts of `deny.toml` the smaller check reads.
#[derive(Deserialize)]
struct Deny {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
}

/// Checks every dependency of the workspace.
pub(crate) fn run() -> Outcome {
    if repo::on_path("cargo-deny") {
        return steps::quiet("deny", Command::new(repo::cargo()).args(["deny", "check"]));
    }
    println!("    cargo-deny is not installed: licences, sources and bans only, no advisories");
    let deny: Deny = toml::from_str(&std::fs::read_to_string(repo::root().join("deny.toml"))?)?;
    let broken = check(&deny, &repo::metadata(&["--locked"])?)?;
    if broken.is_empty() { Ok(()) } else { Err(broken.join("\n  ").into()) }
}

fn check(deny: &Deny, metadata: &Value) -> Result<Vec<String>, Failure> {
    let mut broken = Vec::new();
    for package in metadata["packages"].as_array().ok_or("metadata without packages")? {
        let name = package["name"].as_str().unwrap_or_default();
        if package["source"].as_str().is_some_and(|source| !source.starts_with("registry+")) {
            broken.push(format!("{name} does not come from the registry"));
        }
        if deny.bans.deny.iter().any(|ban| ban.name == name) {
            broken.push(format!("{name} is banned in deny.toml"));
        }
        match package["license"].as_str() {
            Some(licence) if allowed(licence, &deny.licenses.allow) => {}
            Some(licence) => broken.push(format!("{name}: `{licence}` is not allowed")),
            None => broken.push(format!("{name} states no licence")),
        }
    }
    Ok(broken)
}

/// Whether a licence expression can be met with allowed licences only: an `OR` by one side, an
/// `AND` by both. `/` is the old spelling of `OR`; a `WITH` belongs to its licence.
fn allowed(expression: &str, allow: &[String]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any_of(&mut rest, allow) && rest.is_empty()
}

fn any_of(rest: &mut &[&str], allow: &[String]) -> bool {
    let mut met = all_of(rest, allow);
    while next_is(rest, "OR") {
        met |= all_of(rest, allow);
    }
    met
}

fn all_of(rest: &mut &[&str], allow: &[String]) -> bool {
    let mut met = one(rest, allow);
    while next_is(rest, "AND") {
        met &= one(rest, allow);
    }
    met
}

fn one(rest: &mut &[&str], allow: &[String]) -> bool {
    if next_is(rest, "(") {
        return any_of(rest, allow) & next_is(rest, ")");
    }
    let Some((name, after)) = rest.split_first() else { return false };
    *rest = after;
    let mut licence = (*name).to_owned();
    if next_is(rest, "WITH")
        && let Some((exception, after)) = rest.split_first()
    {
        licence = format!("{licence} WITH {exception}");
        *rest = after;
    }
    allow.contains(&licence)
}

fn next_is(rest: &mut &[&str], word: &str) -> bool {
    let found = rest.first() == Some(&word);
    if found {
        *rest = &rest[1..];
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Deny, allowed, check};

    #[test]
    fn expressions_are_met_by_allowed_licences_only() {
        let allow = ["MIT".to_owned(), "Apache-2.0 WITH LLVM-exception".to_owned()];
        for good in [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-3.0/MIT",
            "(X OR MIT) AND MIT",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(allowed(good, &allow), "{good}");
        }
        for bad in ["", "GPL-3.0", "MIT AND X", "Apache-2.0", "(MIT", "MIT MIT"] {
            assert!(!allowed(bad, &allow), "{bad}");
        }
    }

    #[test]
    fn each_kind_of_offence_is_named() {
        let deny: Deny = toml::from_str(
            "[licenses]\nallow = ['MIT']\n[bans]\ndeny = [{ crate = 'bad', reason = 'is bad' }]",
        )
        .unwrap();
        let metadata = json!({ "packages": [
            { "name": "good", "license": "MIT", "source": "registry+x" },
            { "name": "bad", "license": "MIT" },
            { "name": "git", "license": "MIT", "source": "git+x" },
            { "name": "closed", "license": "Other" },
            { "name": "silent" },
        ]});
        let broken = check(&deny, &metadata).unwrap();
        let names: Vec<&str> =
            broken.iter().map(|said| said.split([' ', ':']).next().unwrap()).collect();
        assert_eq!(names, ["bad", "git", "closed", "silent"]);
    }
}
