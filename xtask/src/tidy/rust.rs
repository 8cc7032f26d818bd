//! One Rust file: docs at its head, ceilings on its lines, its functions and its size.

use super::scrub::scrub;
use super::{Finding, Rules};
use crate::repo::SourceFile;

pub(super) fn check(rules: &Rules, file: &SourceFile, findings: &mut Vec<Finding>) {
    let mut find = |line, says: String| findings.push(Finding::new(&file.path, line, says));
    if !opens_with_docs(&file.text) {
        find(1, "opens without `//!` docs that say what the file is for".into());
    }
    if !rules.long_lines.contains_key(&file.path) {
        for (at, line) in file.text.lines().enumerate() {
            let chars = line.chars().count();
            if chars > rules.line_chars_max {
                let max = rules.line_chars_max;
                find(at + 1, format!("line of {chars} characters, the ceiling is {max}"));
            }
        }
    }
    let code = scrub(&file.text);
    let lines = code_lines(without_tests(&code));
    if !is_test(&file.path) && lines > rules.file_lines_max {
        let max = rules.file_lines_max;
        find(1, format!("{lines} lines of code, the ceiling is {max}: split it"));
    }
    for Function { name, line, lines } in functions(&code) {
        if lines > rules.function_lines_max {
            let max = rules.function_lines_max;
            find(line, format!("`{name}` has {lines} lines of code, the ceiling is {max}"));
        }
    }
    for (at, line) in code.lines().enumerate() {
        // Spelled in two parts so that this file does not find itself.
        for mark in [concat!("to", "do!"), concat!("unimpl", "emented!"), concat!("#[ig", "nore")] {
            if line.contains(mark) {
                find(at + 1, format!("`{mark}` is unfinished work"));
            }
        }
    }
}

/// Whether the file's own docs come before anything but attributes and blank lines.
fn opens_with_docs(text: &str) -> bool {
    text.lines()
        .find(|line| !line.trim().is_empty() && !line.starts_with("#!["))
        .is_some_and(|line| line.starts_with("//!") && line.len() > 4)
}

/// Whether the size of a file is not counted: tests grow with what they promise.
fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// `code` up to a test module at its end.
fn without_tests(code: &str) -> &str {
    code.find("\n#[cfg(test)]\nmod ").map_or(code, |at| &code[..at])
}

/// Lines with code on them, attributes included.
pub(super) fn code_lines(code: &str) -> usize {
    code.lines().filter(|line| !line.trim().is_empty()).count()
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
struct Function {
    name: String,
    /// Where `fn` stands, counted from 1.
    line: usize,
    /// Lines of code from `fn` to the closing brace.
    lines: usize,
}

fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let starts_word =
            !code[..at].ends_with(|letter: char| letter.is_alphanumeric() || letter == '_');
        let name: String = code[at + 3..]
            .trim_start()
            .chars()
            .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
            .collect();
        if !starts_word || name.is_empty() {
            continue;
        }
        if let Some(end) = end_of_body(&code[at..]) {
            let line = code[..at].matches('\n').count() + 1;
            found.push(Function { name, line, lines: code_lines(&code[at..at + end]) });
        }
    }
    found
}

/// Where the body ends of a function that starts `code`; `None` if it has no body.
fn end_of_body(code: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut brackets = 0_usize;
    for (at, letter) in code.char_indices() {
        match letter {
            // The `;` of `[u8; 4]` in a signature is not the end of it.
            '(' | '[' if depth == 0 => brackets += 1,
            ')' | ']' if depth == 0 => brackets = brackets.checked_sub(1)?,
            ';' if depth == 0 && brackets == 0 => return None,
            '{' if brackets == 0 => depth += 1,
            '}' if brackets == 0 => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::scrub::scrub;
    use super::{Function, code_lines, functions, opens_with_docs, without_tests};

    #[test]
    fn docs_open_a_file() {
        assert!(opens_with_docs("//! What it is for.\nfn main() {}\n"));
        assert!(opens_with_docs("#![no_std]\n\n//! What it is for.\n"));
        assert!(!opens_with_docs("// A comment.\n//! Late.\n"));
        assert!(!opens_with_docs("//!\nfn main() {}\n"));
    }

    #[test]
    fn comments_and_blank_lines_are_not_code() {
        let code = scrub("//! Doc.\n\n/* a\nb */\nfn f() {\n    // why\n    g()\n}\n");
        assert_eq!(code_lines(&code), 3);
    }

    #[test]
    fn tests_at_the_end_are_not_counted() {
        let code = "fn f() {}\n\n#[cfg(test)]\nmod tests {\n    fn g() {}\n}\n";
        assert_eq!(code_lines(without_tests(code)), 1);
    }

    #[test]
    fn functions_are_measured() {
        let code =
            "trait T {\n    fn no_body(a: [u8; 4]);\n}\nfn long(a: [u8; 4]) {\n\n    { b(\n) }\n}";
        let long = Function { name: "long".into(), line: 4, lines: 4 };
        assert_eq!(functions(code), [long]);
    }
}
