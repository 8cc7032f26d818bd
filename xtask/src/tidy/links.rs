//! Relative links of Markdown files: the file is there, and so is the heading. And paths from the
//! root that any file names between backticks: there is such a file.

use std::path::{Component, Path, PathBuf};

use super::Finding;
use crate::repo::{self, SourceFile};

pub(super) fn check(file: &SourceFile, files: &[SourceFile], findings: &mut Vec<Finding>) {
    for (line, target) in links(&file.text) {
        if let Some(says) = broken(file, files, &target) {
            findings.push(Finding::new(&file.path, line, says));
        }
    }
}

/// Files named between backticks by their path from the root.
pub(super) fn check_named(file: &SourceFile, findings: &mut Vec<Finding>) {
    for (at, line) in file.text.lines().enumerate() {
        for named in line.split('`').skip(1).step_by(2).filter(|span| is_path(span)) {
            if !repo::root().join(named).exists() {
                let says = format!("names `{named}`: no such file");
                findings.push(Finding::new(&file.path, at + 1, says));
            }
        }
    }
}

/// Whether a span of code is the path of one file below a folder of the root.
fn is_path(span: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-".contains(letter);
    let known = ["docs/", "crates/", "xtask/", ".ci/"];
    span.chars().all(plain)
        && known.iter().any(|folder| span.starts_with(folder))
        && [".md", ".rs", ".toml", ".lua"].iter().any(|end| span.ends_with(end))
}

fn broken(file: &SourceFile, files: &[SourceFile], target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, heading) = target.split_once('#').unwrap_or((target, ""));
    let pointed = if path.is_empty() {
        PathBuf::from(&file.path)
    } else {
        normal(&Path::new(&file.path).parent()?.join(path))
    };
    if !repo::root().join(&pointed).exists() {
        return Some(format!("link to `{target}`: no such file"));
    }
    if heading.is_empty() || pointed.extension().is_none_or(|extension| extension != "md") {
        return None;
    }
    let page = files.iter().find(|other| Path::new(&other.path) == pointed)?;
    if headings(&page.text).any(|found| found == heading) {
        None
    } else {
        Some(format!("link to `{target}`: no such heading"))
    }
}

/// Resolves `.` and `..` by name.
fn normal(path: &Path) -> PathBuf {
    let mut done = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                done.pop();
            }
            Component::CurDir => {}
            Component::Normal(_) | Component::RootDir | Component::Prefix(_) => done.push(part),
        }
    }
    done
}

/// Lines outside of fenced blocks, counted from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((at + 1, line))
    })
}

/// The targets of inline and reference links, with their lines.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, line) in prose(text) {
        // Every second part of a line is between backticks.
        let spoken: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for (open, _) in spoken.match_indices("](") {
            let target = &spoken[open + 2..];
            let end = target.find([')', ' ']).unwrap_or(target.len());
            found.push((at, target[..end].to_owned()));
        }
        if let Some((label, target)) = spoken.split_once("]: ")
            && label.starts_with('[')
        {
            found.push((at, target.trim().to_owned()));
        }
    }
    found
}

/// The names under which a page's headings can be linked to.
fn headings(text: &str) -> impl Iterator<Item = String> {
    prose(text).filter(|(_, line)| line.starts_with('#')).map(|(_, line)| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        title
            .chars()
            .filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'))
            .map(|letter| if letter == ' ' { '-' } else { letter })
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{headings, is_path, links, normal};

    #[test]
    fn links_are_found_outside_of_code() {
        let text = "[a](x.md) `[b](y.md)`\n```\n[c](z.md)\n```\n[d]: w.md#e\n";
        assert_eq!(links(text), [(1, "x.md".into()), (5, "w.md#e".into())]);
    }

    #[test]
    fn headings_have_link_names() {
        let found: Vec<String> = headings("# What `it` is, 1.2\n```\n# no\n```\n").collect();
        assert_eq!(found, ["what-it-is-12"]);
    }

    #[test]
    fn paths_are_told_from_other_code() {
        assert!(is_path("docs/states.md") && is_path("crates/core/src/key.rs"));
        assert!(!is_path("docs/problems/*.md") && !is_path("key.rs") && !is_path("docs/"));
    }

    #[test]
    fn dots_are_resolved() {
        assert_eq!(normal(Path::new("docs/../a/./b.md")), PathBuf::from("a/b.md"));
    }
}
