//! Messages as lines of JSON, for `onlyonce mail add --lines`.

use std::io::{BufRead, BufReader, Read as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::MESSAGE_MAX;
use crate::exit::Exit;
use crate::failure::Failure;

/// Longest line, in bytes: a message of which each byte is escaped, with an envelope.
const LINE_MAX: u64 = 2 * MESSAGE_MAX + (1 << 20);
/// Bytes of an encoded word before they are encoded: with `Subject: ` before it, its line has at
/// most 76 characters (RFC 2047, section 2).
const WORD_MAX: usize = 39;
/// Bytes of a line of base64 before they are encoded: 76 characters (RFC 2045, section 6.8).
const ENCODED_MAX: usize = 57;

/// A line.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    pub(super) key: String,
    pub(super) from: String,
    pub(super) to: Vec<String>,
    /// As mail programs write it, or else `subject` and `text`.
    message: Option<String>,
    subject: Option<String>,
    text: Option<String>,
}

impl Line {
    /// The message in the form of RFC 5322, the same each time. `Err` says what is missing.
    pub(super) fn message(&self) -> Result<Vec<u8>, &'static str> {
        match (&self.message, &self.subject, &self.text) {
            (Some(message), None, None) => Ok(message.clone().into_bytes()),
            (None, Some(subject), Some(text)) => Ok(self.composed(subject, text)),
            _ => Err("it has either `message`, or `subject` and `text`"),
        }
    }

    /// Nobody is named in `To` but whom it is for, and each recipient has a copy of his own: so the
    /// others are not named (RFC 5322, section 3.6.3, allows it to be missing).
    fn composed(&self, subject: &str, text: &str) -> Vec<u8> {
        let to = match &self.to[..] {
            [to] => format!("To: {to}\n"),
            _ => String::new(),
        };
        let lines = text.as_bytes().chunks(ENCODED_MAX).map(|it| STANDARD.encode(it) + "\n");
        let body: String = lines.collect();
        format!(
            "From: {}\n{to}Subject: {}\nMIME-Version: 1.0\nContent-Type: text/plain; \
             charset=utf-8\nContent-Transfer-Encoding: base64\n\n{body}",
            self.from,
            encoded(subject)
        )
        .into_bytes()
    }
}

/// A subject in words that every server takes (RFC 2047); what is plain stays so.
fn encoded(subject: &str) -> String {
    let is_plain = |it: u8| it == b' ' || it.is_ascii_graphic();
    if subject.len() < 60 && subject.bytes().all(is_plain) && !subject.contains("=?") {
        return subject.to_owned();
    }
    let mut words: Vec<String> = vec![String::new()];
    for letter in subject.chars() {
        if words.last().is_none_or(|it| WORD_MAX < it.len() + letter.len_utf8()) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.push(letter);
        }
    }
    let words = words.iter().map(|word| format!("=?utf-8?B?{}?=", STANDARD.encode(word)));
    words.collect::<Vec<_>>().join("\n ")
}

/// Calls `each` with every line and its number, from 1; `name` is where they come from. Lines that
/// hold nothing are passed over.
pub(super) fn each(
    name: &str,
    input: impl std::io::Read,
    mut each: impl FnMut(Line, &str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let wrong = |place: &str, text: &str| Failure::new(Exit::Usage, format!("{place}: {text}"));
    let mut input = BufReader::new(input);
    for number in 1_u64.. {
        let place = format!("{name}: line {number}");
        let mut line = Vec::new();
        let read = input.by_ref().take(LINE_MAX).read_until(b'\n', &mut line);
        let read = read.map_err(|error| wrong(&place, &error.to_string()))?;
        if read == 0 {
            break;
        }
        if read as u64 == LINE_MAX {
            return Err(wrong(&place, &format!("it has {LINE_MAX} bytes or more")));
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let line = serde_json::from_slice(&line);
        each(line.map_err(|error| wrong(&place, &error.to_string()))?, &place)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_subject_and_a_text_become_a_message_of_plain_letters() {
        let text = r#"{"key":"k","from":"s@a.example","to":["ann@a.example"],
            "subject":"Willkommen, Jörg: bestätigt, bezahlt und schon unterwegs",
            "text":"Grüße\n"}"#;
        let message = String::from_utf8(line(text).message().unwrap()).unwrap();
        assert!(message.is_ascii(), "{message}");
        assert!(message.lines().all(|it| it.len() <= 78), "{message}");
        assert!(message.starts_with("From: s@a.example\nTo: ann@a.example\nSubject: =?utf-8?B?"));
        assert!(message.ends_with("\n\nR3LDvMOfZQo=\n"), "{message}");
        let plain = text.replace("Willkommen, Jörg: bestätigt, bezahlt und schon", "Hello");
        let plain = String::from_utf8(line(&plain).message().unwrap()).unwrap();
        assert!(plain.contains("\nSubject: Hello unterwegs\n"), "{plain}");
        // A line end in it would begin another field.
        let evil = plain_subject("Hello\nBcc: eve@a.example");
        assert!(!evil.contains("Bcc"), "{evil}");
    }

    fn plain_subject(subject: &str) -> String {
        let text = serde_json::json!({
            "key": "k", "from": "s@a.example", "to": ["a@a.example", "b@a.example"],
            "subject": subject, "text": "",
        });
        let message = line(&text.to_string()).message().unwrap();
        assert!(!String::from_utf8_lossy(&message).contains("\nTo:"), "each has a copy of his own");
        String::from_utf8(message).unwrap()
    }

    #[test]
    fn what_is_no_message_is_named_by_its_line() {
        let good =
            r#"{"key":"k","from":"s@a.example","to":["a@a.example"],"message":"From: a\n\n"}"#;
        for (bad, says) in [
            ("{", "line 3: EOF"),
            (r#"{"key":"k"}"#, "line 3: missing field"),
            (r#"{"key":"k","from":"s","to":[],"message":"","cc":1}"#, "line 3: unknown field `cc`"),
        ] {
            let mut count = 0;
            let text = format!("{good}\n\n{bad}\n");
            let told = each("news", text.as_bytes(), |_, _| {
                count += 1;
                Ok(())
            });
            let told = format!("{:?}", told.unwrap_err());
            assert!(told.contains(says) && count == 1, "{told}");
        }
        let both = line(&good.replace("\"message\"", "\"text\":\"x\",\"message\""));
        assert!(both.message().is_err());
    }
}
