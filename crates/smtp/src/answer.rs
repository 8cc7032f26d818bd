//! What a server answers, and what that means for the message.

use std::fmt;

use smtp_proto::Response;

/// An answer of a server: its code and text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// From 200 to 599.
    pub code: u16,
    /// The enhanced status code, such as `5.1.1`, if there is one (RFC 3463).
    pub enhanced: Option<[u8; 3]>,
    /// The text, with control characters made visible; lines are parted by spaces.
    pub text: String,
}

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// 2xx: done.
    Yes,
    /// 3xx: go on.
    GoOn,
    /// 4xx: not done; the same may be done later.
    Later,
    /// 5xx: not done, and it will not be.
    Never,
}

impl Answer {
    /// `None` if the code means nothing (RFC 5321, section 4.2.1).
    pub(crate) fn read(response: &Response<String>) -> Option<Self> {
        let code = response.code;
        let visible = |it: char| if it.is_control() { ' ' } else { it };
        let text: String = response.message.chars().map(visible).collect();
        let enhanced = (response.esc[0] != 0).then_some(response.esc);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        (200..600).contains(&code).then_some(Self { code, enhanced, text })
    }

    /// What it means.
    pub const fn verdict(&self) -> Verdict {
        match self.code {
            ..300 => Verdict::Yes,
            300..400 => Verdict::GoOn,
            400..500 => Verdict::Later,
            500.. => Verdict::Never,
        }
    }

    /// The id under which the server has queued the message, where the text follows one of the
    /// widespread ways of saying it: `queued as ID`, `id=ID`, `Ok ID`.
    pub fn queue_id(&self) -> Option<&str> {
        let words: Vec<&str> = self.text.split_whitespace().collect();
        let behind = |at: usize| words.get(at + 1).copied();
        let id = words
            .iter()
            .find_map(|it| it.strip_prefix("id="))
            .or_else(|| {
                words.windows(2).position(|it| it == ["queued", "as"]).and_then(|at| behind(at + 1))
            })
            .or_else(|| {
                words.iter().position(|it| it.eq_ignore_ascii_case("ok")).and_then(behind)
            })?;
        let id = id.trim_matches(|it: char| !it.is_ascii_alphanumeric());
        let is_id = id.len() >= 4 && id.bytes().any(|it| it.is_ascii_digit());
        is_id.then_some(id)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some([class, subject, detail]) = self.enhanced {
            write!(f, " {class}.{subject}.{detail}")?;
        }
        if self.text.is_empty() { Ok(()) } else { write!(f, " {}", self.text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: u16, text: &str) -> Answer {
        let (esc, message) = ([2, 0, 0], text.to_owned());
        Answer::read(&Response { code, esc, message }).unwrap()
    }

    #[test]
    fn an_answer_is_read_whatever_its_text_holds() {
        let read = answer(250, "Ok:\r\n queued\u{1b}[31m");
        assert_eq!(read.to_string(), "250 2.0.0 Ok: queued [31m");
        let odd = Response { code: 150, esc: [0; 3], message: String::new() };
        assert_eq!(Answer::read(&odd), None);
    }

    #[test]
    fn the_ids_of_widespread_servers_are_found() {
        for (text, id) in [
            ("Ok: queued as 4F8A31C2E7", Some("4F8A31C2E7")),
            ("OK id=1rXYZa-0001Kd-2B", Some("1rXYZa-0001Kd-2B")),
            ("Ok 0102018c2f3a-6b1d", Some("0102018c2f3a-6b1d")),
            ("Message accepted for delivery", None),
            ("ok", None),
        ] {
            assert_eq!(answer(250, text).queue_id(), id, "{text}");
        }
    }
}
