//! The bytes of a kept answer, version 1: head, body and trailers, which a store keeps unread.
//!
//! ```text
//! version        1 byte, 1
//! head length    4 bytes, big-endian
//! head           fields: name length (2 bytes), name, value length (4 bytes), value
//! body           as it was sent
//! trailers       fields, as the head
//! trailer length 4 bytes, big-endian
//! ```
//!
//! The status is kept beside them. The body is neither decoded nor copied when it is read back.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

/// The format that is written.
pub const VERSION: u8 = 1;
const LENGTH: usize = 4;

/// Why bytes are not a kept answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContentError {
    /// Written by a newer onlyonce, or by something else.
    Version(u8),
    /// The bytes end inside this section.
    Truncated(&'static str),
    /// A name or value in this section is none that HTTP allows.
    Field(&'static str),
}

impl fmt::Display for ContentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => {
                write!(
                    f,
                    "answer format {version} is not known here (this program reads {VERSION})"
                )
            }
            Self::Truncated(section) => write!(f, "the kept answer ends inside its {section}"),
            Self::Field(section) => {
                write!(f, "a field of the kept answer's {section} is not valid")
            }
        }
    }
}

impl std::error::Error for ContentError {}

/// A kept answer, read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The fields that were kept, in their order.
    pub headers: HeaderMap,
    /// The body, sharing the memory of what was read.
    pub body: Bytes,
    /// The trailers; empty if there were none.
    pub trailers: HeaderMap,
}

/// The bytes of an answer that is whole, without trailers.
pub fn whole(headers: &HeaderMap, body: &[u8]) -> Bytes {
    let mut out = begin(headers);
    out.extend_from_slice(body);
    end(out, &HeaderMap::new())
}

/// Begins the bytes with the head; the body is appended to what is returned.
pub(crate) fn begin(headers: &HeaderMap) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend_from_slice(&[0; LENGTH]);
    let at = out.len();
    put_fields(headers, &mut out);
    let length = length(out.len() - at);
    out[1..=LENGTH].copy_from_slice(&length);
    out
}

/// Ends the bytes with the trailers.
pub(crate) fn end(mut out: Vec<u8>, trailers: &HeaderMap) -> Bytes {
    let at = out.len();
    put_fields(trailers, &mut out);
    let length = length(out.len() - at);
    out.extend_from_slice(&length);
    out.into()
}

/// Fields are bounded by every HTTP parser to far below 4 GiB.
fn length(bytes: usize) -> [u8; LENGTH] {
    u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes()
}

fn put_fields(fields: &HeaderMap, out: &mut Vec<u8>) {
    for (name, value) in fields {
        // A name has at most 2^16 - 1 bytes by its type.
        let name = name.as_str().as_bytes();
        out.extend_from_slice(&u16::try_from(name.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend_from_slice(name);
        out.extend_from_slice(&length(value.len()));
        out.extend_from_slice(value.as_bytes());
    }
}

/// Reads a kept answer back.
///
/// # Errors
/// [`ContentError`], whatever the bytes are; it does not panic.
pub fn decode(content: &Bytes) -> Result<Content, ContentError> {
    match content.first() {
        Some(&VERSION) => {}
        Some(version) => return Err(ContentError::Version(*version)),
        None => return Err(ContentError::Truncated("version")),
    }
    let head_at = 1 + LENGTH;
    let head_end = length_at(content, 1, "head")
        .and_then(|length| head_at.checked_add(length).ok_or(ContentError::Truncated("head")))?;
    let head = content.get(head_at..head_end).ok_or(ContentError::Truncated("head"))?;
    let trailers_end = content.len().checked_sub(LENGTH).filter(|end| head_end <= *end);
    let trailers_end = trailers_end.ok_or(ContentError::Truncated("trailers"))?;
    let length = length_at(content, trailers_end, "trailers")?;
    let trailers_at = trailers_end.checked_sub(length).filter(|at| head_end <= *at);
    let trailers_at = trailers_at.ok_or(ContentError::Truncated("trailers"))?;
    Ok(Content {
        headers: fields(head, "head")?,
        body: content.slice(head_end..trailers_at),
        trailers: fields(&content[trailers_at..trailers_end], "trailers")?,
    })
}

fn length_at(content: &[u8], at: usize, section: &'static str) -> Result<usize, ContentError> {
    let bytes = content.get(at..at + LENGTH).and_then(|bytes| bytes.try_into().ok());
    let bytes: [u8; LENGTH] = bytes.ok_or(ContentError::Truncated(section))?;
    Ok(u32::from_be_bytes(bytes) as usize)
}

fn fields(mut bytes: &[u8], section: &'static str) -> Result<HeaderMap, ContentError> {
    let mut fields = HeaderMap::new();
    while !bytes.is_empty() {
        let name = take::<2>(&mut bytes, section)?;
        let name = HeaderName::from_bytes(name).map_err(|_| ContentError::Field(section))?;
        let value = take::<LENGTH>(&mut bytes, section)?;
        let value = HeaderValue::from_bytes(value).map_err(|_| ContentError::Field(section))?;
        fields.try_append(name, value).map_err(|_| ContentError::Field(section))?;
    }
    Ok(fields)
}

/// Takes bytes with their length in `N` bytes before them.
fn take<'a, const N: usize>(
    bytes: &mut &'a [u8],
    section: &'static str,
) -> Result<&'a [u8], ContentError> {
    let truncated = ContentError::Truncated(section);
    let (length, rest) = bytes.split_at_checked(N).ok_or(truncated)?;
    let length = length.iter().fold(0_usize, |length, byte| length << 8 | usize::from(*byte));
    let (taken, rest) = rest.split_at_checked(length).ok_or(truncated)?;
    *bytes = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(fields: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    fn encode(headers: &HeaderMap, body: &[u8], trailers: &HeaderMap) -> Bytes {
        let mut out = begin(headers);
        out.extend_from_slice(body);
        end(out, trailers)
    }

    #[test]
    fn version_1_is_written_and_read_byte_for_byte() {
        let headers = fields(&[("a", b"\xE9"), ("b", b"1"), ("b", b"")]);
        let trailers = fields(&[("t", b"x")]);
        let golden = b"\x01\0\0\0\x17\0\x01a\0\0\0\x01\xE9\0\x01b\0\0\0\x011\0\x01b\0\0\0\0\
                       body\0\x01t\0\0\0\x01x\0\0\0\x08";
        assert_eq!(encode(&headers, b"body", &trailers), &golden[..]);
        let content = decode(&Bytes::from_static(golden)).unwrap();
        assert_eq!(content, Content { headers, body: Bytes::from_static(b"body"), trailers });
    }

    /// Case B47.
    #[test]
    fn every_byte_of_a_body_comes_back_without_being_copied() {
        let body: Vec<u8> = (0..=255).collect();
        let bytes = encode(&HeaderMap::new(), &body, &HeaderMap::new());
        let content = decode(&bytes).unwrap();
        assert_eq!(content.body, body);
        assert!(bytes.as_ptr_range().contains(&content.body.as_ptr()));
    }

    #[test]
    fn damage_is_refused_and_named() {
        let good = encode(&fields(&[("a", b"1")]), b"", &HeaderMap::new());
        assert!(decode(&good).is_ok());
        for cut in 0..good.len() {
            assert!(decode(&good.slice(..cut)).is_err(), "{cut}");
        }
        assert_eq!(decode(&Bytes::from_static(b"\x02")), Err(ContentError::Version(2)));
        let name = Bytes::from_static(b"\x01\0\0\0\x07\0\x01 \0\0\0\0\0\0\0\0");
        assert_eq!(decode(&name), Err(ContentError::Field("head")));
        let long = Bytes::from_static(b"\x01\xFF\xFF\xFF\xFF\0\0\0\0");
        assert_eq!(decode(&long), Err(ContentError::Truncated("head")));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&bytes.clone().into());
            let versioned = [&[VERSION, 0, 0, 0][..], &bytes].concat();
            let _ = decode(&versioned.into());
        }
    }
}
