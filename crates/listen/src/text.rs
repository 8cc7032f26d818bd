//! Mistakes in a configuration, with their place; and the small values in its text.

use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error as _, Visitor};
use toml::Spanned;

/// A mistake in a configuration: where it is, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    text: String,
}

impl ConfigError {
    /// A mistake in something that has no lines, such as a flag.
    pub fn of(place: &str, text: impl fmt::Display) -> Self {
        Self { text: format!("{place}: {text}") }
    }

    /// A mistake in a file's text, shown with its line.
    pub fn at(name: &str, all: &str, span: Option<Range<usize>>, text: &str) -> Self {
        let Some(span) = span else { return Self::of(name, text) };
        let start = span.start.min(all.len());
        let before = all.get(..start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let begin = before.rfind('\n').map_or(0, |at| at + 1);
        let column = all.get(begin..start).unwrap_or_default().chars().count() + 1;
        let shown = all.get(begin..).unwrap_or_default().lines().next().unwrap_or_default();
        let width = all.get(span).map_or(1, |it| it.lines().next().unwrap_or_default().len());
        let carets = "^".repeat(width.max(1));
        let gap = " ".repeat(column - 1);
        let number = line.to_string();
        let margin = " ".repeat(number.len());
        Self {
            text: format!(
                "{name}:{line}:{column}: {text}\n{margin} |\n{number} | {shown}\n{margin} | \
                 {gap}{carets}"
            ),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for ConfigError {}

/// The text of a file and its name, for mistakes.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// What mistakes name.
    pub name: &'a str,
    /// All of it.
    pub text: &'a str,
}

impl Source<'_> {
    /// A mistake, shown with its line if it has a place.
    pub fn wrong(&self, span: Option<Range<usize>>, text: &str) -> ConfigError {
        ConfigError::at(self.name, self.text, span, text)
    }

    /// Only the first line of a table: its name.
    pub fn head(&self, span: Range<usize>) -> Range<usize> {
        let line = self.text.get(span.clone()).and_then(|it| it.lines().next());
        span.start..span.start + line.map_or(0, str::len)
    }

    /// What was said, or the default, within its bounds.
    ///
    /// # Errors
    /// It is outside: says what can be written.
    pub fn within<T: PartialOrd>(
        &self,
        said: Option<Spanned<T>>,
        default: T,
        Bounds(range, shown): &Bounds<T>,
    ) -> Result<T, ConfigError> {
        let Some(said) = said else { return Ok(default) };
        let span = said.span();
        let said = said.into_inner();
        if range.contains(&said) {
            return Ok(said);
        }
        Err(self.wrong(Some(span), &format!("this cannot be kept; write a value {shown}")))
    }
}

/// What values may be, and how a person writes that.
#[derive(Clone, Debug)]
pub struct Bounds<T>(pub RangeInclusive<T>, pub &'static str);

/// What the parser says of a value, and what is to be written instead.
const WORDS: [(&str, &str); 8] = [
    (
        "invalid socket address syntax",
        "this is no IP address with a port, such as \"127.0.0.1:80\"",
    ),
    ("expected socket address", "expected an IP address with a port, such as \"127.0.0.1:80\""),
    ("expected usize", "expected a whole number, such as 100"),
    ("expected u32", "expected a whole number, such as 100"),
    ("expected u16", "expected a whole number, such as 200"),
    ("expected a boolean", "expected true or false"),
    ("expected a sequence", "expected a list: values in [ ], or tables headed by [[ ]]"),
    ("expected struct", "expected a table, headed by its name in [ ]"),
];

/// The parser's word on a mistake, with how to mend it.
pub fn mended(message: &str) -> String {
    if message.starts_with("unknown") {
        return with_nearest(message);
    }
    let said = WORDS.iter().find_map(|(says, instead)| {
        let (before, _) = message.split_once(says)?;
        Some(format!("{before}{instead}"))
    });
    said.unwrap_or_else(|| message.to_owned())
}

/// Adds the nearest known name to the parser's word on an unknown one.
fn with_nearest(message: &str) -> String {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let Some((unknown, known)) = quoted.split_first() else { return message.to_owned() };
    let near = known.iter().map(|name| (strsim::damerau_levenshtein(unknown, name), *name)).min();
    match near {
        Some((distance, name)) if distance <= 1 + unknown.len() / 3 => {
            format!("unknown name `{unknown}`; did you mean `{name}`?")
        }
        _ => message.to_owned(),
    }
}

/// A duration as a person writes it: a whole number and a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A number of bytes: plain, or with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub usize);

fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|it: char| !it.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim()))
}

/// The longest duration, in milliseconds: what is added to the present must still be a time.
const SPAN_MAX: u64 = 36_500 * 86_400_000;

/// Reads a duration such as `200ms`, `5s`, `2m`, `24h`, `30d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let unknown =
        || format!("{text:?} is no duration; write one such as \"200ms\", \"5s\", \"24h\"");
    let (number, unit) = split(text).ok_or_else(unknown)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(unknown()),
    };
    let millis = number.checked_mul(millis).ok_or_else(unknown)?;
    if SPAN_MAX < millis {
        return Err(format!("{text:?} is too long; the longest is \"36500d\", a hundred years"));
    }
    Ok(Duration::from_millis(millis))
}

/// Reads a size such as `65536`, `64KiB`, `16MiB`.
pub fn size(text: &str) -> Result<usize, String> {
    let unknown =
        || format!("{text:?} is no size; write bytes, or one such as \"64KiB\", \"16MiB\"");
    let (number, unit) = split(text).ok_or_else(unknown)?;
    let factor = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(unknown()),
    };
    number.checked_mul(factor).and_then(|it| usize::try_from(it).ok()).ok_or_else(unknown)
}

struct Text<T>(fn(&str) -> Result<T, String>, &'static str);

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).map_err(E::custom)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<T, E> {
        (self.0)(&number.to_string()).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Text(duration, "a duration such as \"5s\"")).map(Self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Text(size, "a size such as \"16MiB\"")).map(Self)
    }
}

/// Anything that is read from a string by a function of ours.
pub fn parsed<'de, D: Deserializer<'de>, T>(
    from: D,
    parse: fn(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    let text = String::deserialize(from)?;
    parse(&text).map_err(D::Error::custom)
}
