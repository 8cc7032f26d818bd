//! Words that stand nowhere: marks of unfinished work, paths of one machine, registry hosts.

use super::{Finding, RULES, Rules};
use crate::repo::SourceFile;

/// Marks of unfinished work, spelled in two parts so that this file does not find itself.
const MARKS: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

pub(super) fn check(rules: &Rules, file: &SourceFile, findings: &mut Vec<Finding>) {
    if file.path == RULES || file.path == "Cargo.lock" {
        return;
    }
    for (at, line) in file.text.lines().enumerate() {
        for mark in MARKS {
            if has_word(line, mark) {
                findings.push(Finding::new(&file.path, at + 1, format!("unfinished: {mark}")));
            }
        }
        for word in rules.forbidden.iter().filter(|word| line.contains(word.as_str())) {
            findings.push(Finding::new(&file.path, at + 1, format!("forbidden: `{word}`")));
        }
    }
}

/// Whether `word` stands in `line` as a word of its own.
fn has_word(line: &str, word: &str) -> bool {
    let letter = |next: Option<char>| next.is_some_and(|next| next.is_alphanumeric());
    line.match_indices(word).any(|(at, _)| {
        !letter(line[..at].chars().next_back()) && !letter(line[at + word.len()..].chars().next())
    })
}

#[cfg(test)]
mod tests {
    use super::has_word;

    #[test]
    fn a_mark_is_a_word_of_its_own() {
        assert!(has_word("// NOTE: later", "NOTE"));
        assert!(has_word("NOTE", "NOTE"));
        assert!(!has_word("KEYNOTES", "NOTE"));
    }
}
