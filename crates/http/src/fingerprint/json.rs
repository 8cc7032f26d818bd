//! JSON text in one form per structure: members sorted, no blanks, one spelling per string.
//!
//! A general parser would not do: it loses how numbers are spelled, and takes the last of two
//! members with one name where another program takes the first. Whatever is not plain JSON
//! (RFC 8259) with unique names and whole characters has no canonical form here.

use std::borrow::Cow;

use super::pointer::Pointers;

/// Deepest nesting that is read; it bounds the stack.
pub const DEPTH_MAX: usize = 128;

/// What becomes of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// They stay as they are spelled: `1.0` is not `1`.
    AsSpelled,
    /// They become doubles, written as ECMAScript writes them (RFC 8785 section 3.2.2.3).
    Canonical,
}

/// The canonical form of a JSON text, without the members that `exclude` points to.
///
/// `None` if the bytes are not JSON, have an object with two members of one name, a lone
/// surrogate, a number that no double holds (if `numbers` asks for doubles), or nest deeper than
/// [`DEPTH_MAX`].
pub fn canonical(body: &[u8], numbers: Numbers, exclude: &Pointers) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(body).ok()?;
    let out = Vec::with_capacity(text.len());
    Reader { out, numbers, ..Reader::of(text) }.whole(exclude).map(|reader| reader.out)
}

/// A value in a JSON text that a pointer leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Where it begins, in bytes.
    pub(crate) from: usize,
    /// Where it ends, without blanks behind it.
    pub(crate) to: usize,
    /// What leads to it.
    pub(crate) path: Vec<String>,
}

/// Where the values stand that `members` lead to, in their order and not one in another. `None` if
/// the text has no canonical form: then nobody can say what a pointer leads to.
pub(crate) fn spans(body: &[u8], members: &Pointers) -> Option<Vec<Span>> {
    let text = std::str::from_utf8(body).ok()?;
    let mut spans = Reader::of(text).whole(members)?.ended;
    spans.sort_by_key(|span| (span.from, std::cmp::Reverse(span.to)));
    let mut end = 0;
    spans.retain(|span| {
        let is_outer = end <= span.from;
        end = end.max(span.to);
        is_outer
    });
    Some(spans)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    out: Vec<u8>,
    numbers: Numbers,
    depth: usize,
    /// Where the last value ended.
    end: usize,
    /// What leads to the value that is read, if there are pointers to follow.
    path: Vec<String>,
    /// The values at which a pointer ended.
    ended: Vec<Span>,
}

/// A member as it stands in the output, and the name to sort it by.
struct Member<'a> {
    name: Cow<'a, str>,
    begin: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    fn of(text: &'a str) -> Self {
        let (out, path, ended) = (Vec::new(), Vec::new(), Vec::new());
        Self { text, at: 0, out, numbers: Numbers::AsSpelled, depth: 0, end: 0, path, ended }
    }

    /// Reads all of the text.
    fn whole(mut self, exclude: &Pointers) -> Option<Self> {
        self.blanks();
        self.value(&exclude.all())?;
        (self.at == self.text.len()).then_some(self)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek() == Some(byte)).then(|| self.at += 1)
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// One value and the blanks behind it. `exclude` holds what is left of each pointer that
    /// leads here.
    fn value(&mut self, exclude: &[&[String]]) -> Option<()> {
        match self.peek()? {
            b'{' => self.nested(|reader| reader.object(exclude))?,
            b'[' => self.nested(|reader| reader.array(exclude))?,
            b'"' => {
                let text = self.string()?;
                write_string(&text, &mut self.out);
            }
            b't' => self.literal("true")?,
            b'f' => self.literal("false")?,
            b'n' => self.literal("null")?,
            _ => self.number()?,
        }
        self.end = self.at;
        self.blanks();
        Some(())
    }

    fn nested(&mut self, read: impl FnOnce(&mut Self) -> Option<()>) -> Option<()> {
        if self.depth == DEPTH_MAX {
            return None;
        }
        self.depth += 1;
        self.at += 1;
        self.blanks();
        read(self)?;
        self.depth -= 1;
        Some(())
    }

    fn literal(&mut self, word: &str) -> Option<()> {
        self.text[self.at..].starts_with(word).then(|| {
            self.out.extend_from_slice(word.as_bytes());
            self.at += word.len();
        })
    }

    fn array(&mut self, exclude: &[&[String]]) -> Option<()> {
        self.out.push(b'[');
        let begin = self.out.len();
        let mut index = 0_usize;
        if self.take(b']').is_none() {
            loop {
                let before = self.out.len();
                if begin < before {
                    self.out.push(b',');
                }
                let index_text = if exclude.is_empty() { String::new() } else { index.to_string() };
                if self.member_value(&index_text, exclude)? {
                    self.out.truncate(before);
                }
                index += 1;
                if self.take(b',').is_none() {
                    break;
                }
                self.blanks();
            }
            self.take(b']')?;
        }
        self.out.push(b']');
        Some(())
    }

    fn object(&mut self, exclude: &[&[String]]) -> Option<()> {
        self.out.push(b'{');
        let begin = self.out.len();
        let mut members = Vec::new();
        let mut excluded = Vec::new();
        if self.take(b'}').is_none() {
            loop {
                let before = self.out.len();
                if begin < before {
                    self.out.push(b',');
                }
                let start = self.out.len();
                let name = self.string()?;
                write_string(&name, &mut self.out);
                self.out.push(b':');
                self.blanks();
                self.take(b':')?;
                self.blanks();
                if self.member_value(&name, exclude)? {
                    self.out.truncate(before);
                    excluded.push(name);
                } else {
                    members.push(Member { name, begin: start, end: self.out.len() });
                }
                if self.take(b',').is_none() {
                    break;
                }
                self.blanks();
            }
            self.take(b'}')?;
        }
        excluded.sort_unstable();
        if excluded.windows(2).any(|pair| pair[0] == pair[1]) {
            return None;
        }
        self.sort(begin, members)?;
        self.out.push(b'}');
        Some(())
    }

    /// Reads the value of a member or element; whether a pointer ends at it.
    fn member_value(&mut self, name: &str, exclude: &[&[String]]) -> Option<bool> {
        if exclude.is_empty() {
            return self.value(&[]).map(|()| false);
        }
        let led: Vec<&[String]> = exclude
            .iter()
            .filter_map(|tokens| tokens.split_first())
            .filter(|(first, _)| *first == name)
            .map(|(_, rest)| rest)
            .collect();
        if led.is_empty() {
            return self.value(&[]).map(|()| false);
        }
        let ends = led.iter().any(|rest| rest.is_empty());
        let from = self.at;
        self.path.push(name.to_owned());
        self.value(&led)?;
        if ends {
            self.ended.push(Span { from, to: self.end, path: self.path.clone() });
        }
        self.path.pop();
        Some(ends)
    }

    /// Brings the members that were written from `begin` on into order. `None` if two have the
    /// same name.
    fn sort(&mut self, begin: usize, mut members: Vec<Member<'a>>) -> Option<()> {
        let in_order =
            |pair: &[Member<'_>]| compare(&pair[0].name, &pair[1].name) == std::cmp::Ordering::Less;
        if members.windows(2).all(in_order) {
            return Some(());
        }
        members.sort_by(|a, b| compare(&a.name, &b.name));
        if !members.windows(2).all(in_order) {
            return None;
        }
        let mut sorted = Vec::with_capacity(self.out.len() - begin);
        for member in &members {
            if !sorted.is_empty() {
                sorted.push(b',');
            }
            sorted.extend_from_slice(&self.out[member.begin..member.end]);
        }
        self.out.truncate(begin);
        self.out.extend_from_slice(&sorted);
        Some(())
    }

    /// The characters of a string; borrowed where nothing is escaped.
    fn string(&mut self) -> Option<Cow<'a, str>> {
        self.take(b'"')?;
        let begin = self.at;
        loop {
            match self.peek()? {
                b'"' => {
                    let text = &self.text[begin..self.at];
                    self.at += 1;
                    return Some(Cow::Borrowed(text));
                }
                b'\\' => break,
                0..=0x1F => return None,
                _ => self.at += 1,
            }
        }
        let mut text = self.text[begin..self.at].to_owned();
        loop {
            let plain = self.at;
            while !matches!(self.peek()?, b'"' | b'\\' | 0..=0x1F) {
                self.at += 1;
            }
            text.push_str(&self.text[plain..self.at]);
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(Cow::Owned(text));
                }
                b'\\' => text.push(self.escape()?),
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        self.take(b'\\')?;
        let letter = self.peek()?;
        self.at += 1;
        Some(match letter {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.hex()?;
                if !(0xD800..0xDC00).contains(&unit) {
                    return char::from_u32(unit);
                }
                self.take(b'\\')?;
                self.take(b'u')?;
                let low = self.hex()?;
                let low = (0xDC00..0xE000).contains(&low).then(|| low - 0xDC00)?;
                return char::from_u32(0x1_0000 + ((unit - 0xD800) << 10) + low);
            }
            _ => return None,
        })
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4)?;
        self.at += 4;
        digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))
    }

    fn number(&mut self) -> Option<()> {
        let begin = self.at;
        let _ = self.take(b'-');
        match self.peek()? {
            b'0' => self.at += 1,
            _ => self.digits()?,
        }
        if self.take(b'.').is_some() {
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        let spelled = &self.text[begin..self.at];
        match self.numbers {
            Numbers::AsSpelled => self.out.extend_from_slice(spelled.as_bytes()),
            Numbers::Canonical => {
                let double = spelled.parse::<f64>().ok().filter(|double| double.is_finite())?;
                let mut buffer = ryu_js::Buffer::new();
                self.out.extend_from_slice(buffer.format_finite(double).as_bytes());
            }
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let begin = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (begin < self.at).then_some(())
    }
}

/// By UTF-16 code units, as RFC 8785 section 3.2.3 wants it; for ASCII that is by bytes.
fn compare(a: &str, b: &str) -> std::cmp::Ordering {
    if a.is_ascii() && b.is_ascii() { a.cmp(b) } else { a.encode_utf16().cmp(b.encode_utf16()) }
}

/// A string as RFC 8785 section 3.2.2.2 writes it.
fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        if !matches!(byte, b'"' | b'\\' | 0..=0x1F) {
            continue;
        }
        out.extend_from_slice(&text.as_bytes()[plain..at]);
        plain = at + 1;
        match byte {
            b'"' => out.extend_from_slice(br#"\""#),
            b'\\' => out.extend_from_slice(br"\\"),
            0x08 => out.extend_from_slice(br"\b"),
            b'\t' => out.extend_from_slice(br"\t"),
            b'\n' => out.extend_from_slice(br"\n"),
            0x0C => out.extend_from_slice(br"\f"),
            b'\r' => out.extend_from_slice(br"\r"),
            _ => {
                out.extend_from_slice(br"\u00");
                for digit in [byte >> 4, byte & 15] {
                    out.push(b"0123456789abcdef"[usize::from(digit)]);
                }
            }
        }
    }
    out.extend_from_slice(&text.as_bytes()[plain..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests;
