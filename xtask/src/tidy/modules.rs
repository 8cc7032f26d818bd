//! Dead files: Rust sources of a package that no `mod` reaches.

use std::collections::{BTreeMap, BTreeSet};

use super::scrub::scrub;
use super::{Finding, Rules};
use crate::repo::SourceFile;

pub(super) fn check(rules: &Rules, files: &[SourceFile], findings: &mut Vec<Finding>) {
    let sources: BTreeMap<&str, &str> = files
        .iter()
        .filter(|file| file.extension() == "rs")
        .map(|file| (file.path.as_str(), file.text.as_str()))
        .collect();
    let mut reached = BTreeSet::new();
    let mut next: Vec<String> =
        sources.keys().filter(|path| is_root(path)).map(|path| (*path).to_owned()).collect();
    while let Some(path) = next.pop() {
        if let Some(text) = sources.get(path.as_str())
            && reached.insert(path.clone())
        {
            next.extend(named(&path, text));
        }
    }
    for path in sources.keys().filter(|path| !reached.contains(**path)) {
        if !rules.not_modules.keys().any(|listed| path.starts_with(listed.as_str())) {
            findings.push(Finding::new(path, 1, "no `mod` reaches this file"));
        }
    }
}

/// Whether cargo finds the file by itself.
fn is_root(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        [.., "build.rs"] | [.., "src", "lib.rs" | "main.rs"] | [.., "src", "bin", _] => true,
        [.., "tests" | "examples" | "benches", _] => !parts.contains(&"src"),
        [.., "tests" | "examples" | "benches", _, "main.rs"] => !parts.contains(&"src"),
        [.., "fuzz_targets", _] => true,
        _ => false,
    }
}

/// The files that the `mod name;` of one file may mean.
fn named(path: &str, text: &str) -> Vec<String> {
    let code = scrub(text);
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let stem = file.strip_suffix(".rs").unwrap_or(file);
    let children =
        if is_root(path) || stem == "mod" { folder.to_owned() } else { format!("{folder}/{stem}") };
    let mut found = Vec::new();
    let mut elsewhere = None;
    for (line, written) in code.lines().zip(text.lines()) {
        if line.trim_start().starts_with("#[path") {
            elsewhere = written.split('"').nth(1);
            continue;
        }
        let Some(name) = declared(line) else { continue };
        match elsewhere.take() {
            Some(target) => found.push(format!("{folder}/{target}")),
            None => {
                found.push(format!("{children}/{name}.rs"));
                found.push(format!("{children}/{name}/mod.rs"));
            }
        }
    }
    found
}

/// The name in `mod name;`, with or without a visibility.
fn declared(line: &str) -> Option<&str> {
    let before = line.trim().strip_suffix(';')?;
    let mut words = before.split_whitespace().rev();
    let name = words.next()?;
    (words.next() == Some("mod")).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::{declared, is_root, named};

    #[test]
    fn cargo_finds_some_files_by_itself() {
        let roots = [
            "crates/a/src/lib.rs",
            "crates/a/src/bin/b.rs",
            "a/tests/x.rs",
            "a/examples/y/main.rs",
        ];
        assert!(roots.iter().all(|path| is_root(path)));
        let others = ["crates/a/src/key.rs", "a/tests/common/mod.rs", "a/src/tests/x.rs"];
        assert!(!others.iter().any(|path| is_root(path)));
    }

    #[test]
    fn a_mod_names_files() {
        assert_eq!(declared("pub(crate) mod key;"), Some("key"));
        assert_eq!(declared("mod tests {"), None);
        let text = "mod a;\n// mod b;\n#[path = \"other.rs\"]\nmod c;\n";
        assert_eq!(
            named("x/src/d.rs", text),
            ["x/src/d/a.rs", "x/src/d/a/mod.rs", "x/src/other.rs"]
        );
    }
}
