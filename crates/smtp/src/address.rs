//! A mailbox as an envelope names it.

use std::fmt;

/// Longest path in bytes, the angle brackets left out (RFC 5321, section 4.5.3.1.3).
const PATH_MAX: usize = 254;
/// Longest part before the `@` in bytes (RFC 5321, section 4.5.3.1.1).
const LOCAL_MAX: usize = 64;

/// An address that can be put into a command as it is: it holds no control character, no space and
/// no angle bracket, so it cannot become a second command.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mailbox(String);

/// Why a text is no mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailboxError {
    /// It does not have one part before and one behind an `@`.
    Parts,
    /// It is longer than servers must accept.
    Long,
    /// It holds a character that an envelope cannot hold.
    Character(char),
}

impl Mailbox {
    /// Reads `local@domain`. Anything finer, such as whether the domain exists, the server says.
    ///
    /// # Errors
    /// It is no mailbox, or one that has to be quoted.
    pub fn new(text: &str) -> Result<Self, MailboxError> {
        let (local, domain) = text.rsplit_once('@').ok_or(MailboxError::Parts)?;
        if local.is_empty() || domain.is_empty() {
            return Err(MailboxError::Parts);
        }
        if PATH_MAX < text.len() || LOCAL_MAX < local.len() {
            return Err(MailboxError::Long);
        }
        let outside = |it: char| {
            it.is_control() || it.is_whitespace() || matches!(it, '<' | '>' | '"' | '\\' | ',')
        };
        match text.chars().find(|it| outside(*it)) {
            Some(found) => Err(MailboxError::Character(found)),
            None if local.contains('@') => Err(MailboxError::Character('@')),
            None => Ok(Self(text.to_owned())),
        }
    }

    /// The address.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part behind the `@`.
    pub fn domain(&self) -> &str {
        self.0.rsplit_once('@').map_or("", |(_, domain)| domain)
    }

    /// Whether the server must know SMTPUTF8 (RFC 6531) to be told it.
    pub(crate) fn is_international(&self) -> bool {
        !self.0.is_ascii()
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for MailboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parts => f.write_str("an address is written name@domain"),
            Self::Long => write!(
                f,
                "an address has at most {PATH_MAX} bytes, {LOCAL_MAX} of them before the @"
            ),
            Self::Character(found) => {
                write!(f, "{found:?} cannot stand in the address of an envelope")
            }
        }
    }
}

impl std::error::Error for MailboxError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_become_a_second_command_is_no_address() {
        for text in ["ann@shop.example", "a.b+c@[192.0.2.1]", "jörg@müller.example"] {
            assert_eq!(Mailbox::new(text).as_ref().map(Mailbox::as_str), Ok(text));
        }
        for text in ["", "ann", "@shop.example", "ann@"] {
            assert_eq!(Mailbox::new(text), Err(MailboxError::Parts), "{text}");
        }
        for (text, found) in [
            ("ann@shop.example>\r\nRCPT TO:<eve@shop.example", '>'),
            ("ann@shop.example\nDATA", '\n'),
            ("ann @shop.example", ' '),
            ("\"ann\"@shop.example", '"'),
            ("ann@eve@shop.example", '@'),
        ] {
            assert_eq!(Mailbox::new(text), Err(MailboxError::Character(found)), "{text}");
        }
        let long = format!("{}@shop.example", "a".repeat(65));
        assert_eq!(Mailbox::new(&long), Err(MailboxError::Long));
    }
}
