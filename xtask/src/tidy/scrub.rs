//! Blanks what is not code in Rust source: comments and the insides of literals.
//!
//! Lines and columns stay where they are, so that braces can be counted and words looked for in
//! what is left. Comments become spaces; characters of a literal become `_`.

use std::iter::Peekable;
use std::str::Chars;

/// `source` with its comments and the insides of its literals blanked.
pub(super) fn scrub(source: &str) -> String {
    let mut scrubber = Scrubber { rest: source.chars().peekable(), done: String::new() };
    while let Some(letter) = scrubber.rest.next() {
        scrubber.one(letter);
    }
    scrubber.done
}

struct Scrubber<'a> {
    rest: Peekable<Chars<'a>>,
    done: String,
}

impl Scrubber<'_> {
    fn one(&mut self, letter: char) {
        match (letter, self.rest.peek().copied()) {
            ('/', Some('/')) => self.line_comment(),
            ('/', Some('*')) => self.block_comment(),
            ('"', _) => self.string(),
            ('r', Some('"' | '#')) if !self.in_word() => self.raw(),
            ('\'', _) => self.quote(),
            (letter, _) => self.done.push(letter),
        }
    }

    /// Whether what we have ends inside an identifier, so that a coming `r` belongs to it. The
    /// `b` and `c` of a byte or C string do not count.
    fn in_word(&self) -> bool {
        let mut before = self.done.chars().rev();
        match before.next() {
            Some('b' | 'c') => before.next().is_some_and(is_word),
            Some(letter) => is_word(letter),
            None => false,
        }
    }

    fn line_comment(&mut self) {
        self.done.push(' ');
        while self.rest.peek().is_some_and(|next| *next != '\n') {
            self.rest.next();
            self.done.push(' ');
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        let mut before = '/';
        self.done.push(' ');
        for letter in self.rest.by_ref() {
            self.done.push(if letter == '\n' { '\n' } else { ' ' });
            match (before, letter) {
                ('/', '*') => depth += 1,
                ('*', '/') => depth -= 1,
                _ => {
                    before = letter;
                    continue;
                }
            }
            if depth == 0 {
                return;
            }
            // A star or slash that closed or opened a pair is part of no other.
            before = ' ';
        }
    }

    fn string(&mut self) {
        self.done.push('"');
        while let Some(letter) = self.rest.next() {
            match letter {
                '"' => return self.done.push('"'),
                '\\' => {
                    self.done.push('_');
                    let escaped = self.rest.next();
                    self.done.push(if escaped == Some('\n') { '\n' } else { '_' });
                }
                letter => self.done.push(blank(letter)),
            }
        }
    }

    /// After the `r` of a raw string or of a raw identifier.
    fn raw(&mut self) {
        self.done.push('r');
        let mut hashes = 0_usize;
        while self.rest.next_if_eq(&'#').is_some() {
            self.done.push('#');
            hashes += 1;
        }
        if self.rest.next_if_eq(&'"').is_none() {
            return;
        }
        self.done.push('"');
        let mut closing: Option<usize> = None;
        for letter in self.rest.by_ref() {
            closing = match (letter, closing) {
                ('"', _) => Some(0),
                ('#', Some(seen)) => Some(seen + 1),
                _ => None,
            };
            self.done.push(if matches!(letter, '"' | '#') { letter } else { blank(letter) });
            if closing == Some(hashes) {
                return;
            }
        }
    }

    /// A character literal or a lifetime.
    fn quote(&mut self) {
        self.done.push('\'');
        let Some(letter) = self.rest.next() else { return };
        if letter == '\\' {
            self.done.push_str("__");
            self.rest.next();
            for letter in self.rest.by_ref() {
                if letter == '\'' {
                    return self.done.push('\'');
                }
                self.done.push('_');
            }
        } else if self.rest.next_if_eq(&'\'').is_some() {
            self.done.push_str("_'");
        } else {
            self.done.push(letter);
        }
    }
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

fn blank(letter: char) -> char {
    if letter == '\n' { '\n' } else { '_' }
}

#[cfg(test)]
mod tests {
    use super::scrub;

    #[test]
    fn comments_become_spaces() {
        assert_eq!(scrub("a // b {\nc"), "a       \nc");
        assert_eq!(scrub("a /* { /* } */ \n */ b"), "a              \n    b");
        assert_eq!(scrub("a /**/ b"), "a      b");
    }

    #[test]
    fn insides_of_literals_are_blank() {
        assert_eq!(scrub(r#"f("{ \" }", x)"#), r#"f("______", x)"#);
        assert_eq!(scrub(r##"r#"a"{"# }"##), r##"r#"_"_"# }"##);
        assert_eq!(scrub(r#"br"\" }"#), r#"br"_" }"#);
        assert_eq!(scrub("'{' '\\'' '\\u{7f}' }"), "'_' '__' '______' }");
    }

    #[test]
    fn lifetimes_and_names_are_code() {
        assert_eq!(scrub("fn f<'a>(x: &'a str) {}"), "fn f<'a>(x: &'a str) {}");
        assert_eq!(scrub("r#type var\"x\""), "r#type var\"_\"");
    }
}
