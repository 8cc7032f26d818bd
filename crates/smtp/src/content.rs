//! The content of a message: its head and body, in the one form that no server reads differently.

use std::fmt;

/// Longest line in bytes without its end (RFC 5321, section 4.5.3.1.6).
const LINE_MAX: usize = 998;

/// Lines that all end with CR LF, none too long, with no byte that servers disagree about.
///
/// A lone CR or LF is where servers have been made to see two messages in one; there is none here.
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    bytes: Vec<u8>,
    is_ascii: bool,
}

/// What cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentError {
    /// There is nothing.
    Empty,
    /// A NUL, or a CR without LF behind it, in the line of this number, from 1.
    Byte {
        /// The line.
        line: usize,
        /// The byte.
        byte: u8,
    },
    /// The line of this number, from 1, is longer than 998 bytes.
    Long {
        /// The line.
        line: usize,
    },
}

impl Content {
    /// Takes lines that end with LF or CR LF.
    ///
    /// # Errors
    /// Something in it cannot be sent; it names the line.
    pub fn new(text: &[u8]) -> Result<Self, ContentError> {
        if text.is_empty() {
            return Err(ContentError::Empty);
        }
        let mut bytes = Vec::with_capacity(text.len() + text.len() / 32 + 2);
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        for (number, line) in text.split(|it| *it == b'\n').enumerate() {
            let (line, number) = (line.strip_suffix(b"\r").unwrap_or(line), number + 1);
            if let Some(byte) = line.iter().find(|it| matches!(it, 0 | b'\r')) {
                return Err(ContentError::Byte { line: number, byte: *byte });
            }
            if LINE_MAX < line.len() {
                return Err(ContentError::Long { line: number });
            }
            bytes.extend_from_slice(line);
            bytes.extend_from_slice(b"\r\n");
        }
        Ok(Self { is_ascii: bytes.is_ascii(), bytes })
    }

    /// The bytes, every line ending with CR LF.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether a server of seven bits takes it.
    pub const fn is_ascii(&self) -> bool {
        self.is_ascii
    }

    /// The bytes with a second dot before each line that begins with one (RFC 5321, section
    /// 4.5.2), without the end.
    pub(crate) fn stuffed(&self) -> Vec<u8> {
        let mut stuffed = Vec::with_capacity(self.bytes.len() + 16);
        let mut begins = true;
        for byte in &self.bytes {
            if begins && *byte == b'.' {
                stuffed.push(b'.');
            }
            stuffed.push(*byte);
            begins = *byte == b'\n';
        }
        stuffed
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({} bytes)", self.bytes.len())
    }
}

impl fmt::Display for ContentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("there is no message"),
            Self::Byte { line, byte: b'\r' } => {
                write!(f, "line {line} holds a CR that does not end it; encode the part")
            }
            Self::Byte { line, byte } => {
                write!(f, "line {line} holds the byte {byte}; encode the part, such as in base64")
            }
            Self::Long { line } => {
                write!(f, "line {line} is longer than {LINE_MAX} bytes; encode the part")
            }
        }
    }
}

impl std::error::Error for ContentError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &[u8]) -> Vec<u8> {
        Content::new(text).unwrap().as_bytes().to_vec()
    }

    #[test]
    fn every_line_ends_with_cr_lf_however_it_came() {
        assert_eq!(bytes(b"a\nb\r\n\nc"), b"a\r\nb\r\n\r\nc\r\n");
        assert_eq!(bytes(b"a\n"), b"a\r\n");
        assert_eq!(bytes(b"\n"), b"\r\n");
    }

    #[test]
    fn no_dot_at_the_beginning_of_a_line_ends_the_message() {
        let content = Content::new(b".\n..\na.b\n.end").unwrap();
        assert_eq!(content.stuffed(), b"..\r\n...\r\na.b\r\n..end\r\n");
    }

    #[test]
    fn what_servers_disagree_about_is_refused_with_its_line() {
        assert_eq!(Content::new(b""), Err(ContentError::Empty));
        let smuggled = Content::new(b"a\n.\rMAIL FROM:<eve@shop.example>\n");
        assert_eq!(smuggled, Err(ContentError::Byte { line: 2, byte: b'\r' }));
        assert_eq!(Content::new(b"a\0"), Err(ContentError::Byte { line: 1, byte: 0 }));
        let long = [b"a\n".as_slice(), &[b'x'; 999]].concat();
        assert_eq!(Content::new(&long), Err(ContentError::Long { line: 2 }));
        assert!(Content::new(&long[..1_000]).is_ok());
    }
}
