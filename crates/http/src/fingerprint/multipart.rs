//! A multipart body (RFC 2046 section 5.1) by its parts: boundaries are random, parts are not.

/// Longest boundary that the standard allows, in bytes.
const BOUNDARY_MAX: usize = 70;

/// One part: its header lines in the order of their names, and its bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    /// Names in lower case; values without blanks around them.
    pub(super) headers: Vec<(Vec<u8>, &'a [u8])>,
    pub(super) body: &'a [u8],
}

/// Splits a body. `None` if anything about it is unusual, such as text outside of the parts.
pub(super) fn split<'a>(content_type: &[u8], body: &'a [u8]) -> Option<Vec<Part<'a>>> {
    let delimiter = [b"--", boundary(content_type)?.as_slice()].concat();
    let mut parts = Vec::new();
    let mut rest = body.strip_prefix(delimiter.as_slice())?;
    let delimiter = [b"\r\n", delimiter.as_slice()].concat();
    loop {
        if let Some(end) = rest.strip_prefix(b"--") {
            return matches!(end, b"" | b"\r\n").then_some(parts);
        }
        let part = after_blanks(rest).strip_prefix(b"\r\n")?;
        let end = delimited(part, &delimiter)?;
        parts.push(read(&part[..end])?);
        rest = &part[end + delimiter.len()..];
    }
}

/// Where the next delimiter begins: followed by `--`, blanks or the end of its line, as it might
/// also be the beginning of longer text.
fn delimited(part: &[u8], delimiter: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += find(&part[at..], delimiter)?;
        if matches!(part.get(at + delimiter.len()), Some(b'-' | b'\r' | b' ' | b'\t')) {
            return Some(at);
        }
        at += 1;
    }
}

fn read(part: &[u8]) -> Option<Part<'_>> {
    let (head, body) = match part.strip_prefix(b"\r\n") {
        Some(body) => (&[][..], body),
        None => {
            let end = find(part, b"\r\n\r\n")?;
            (&part[..end], &part[end + 4..])
        }
    };
    let mut headers = Vec::new();
    let mut lines = head;
    while !lines.is_empty() {
        let end = find(lines, b"\r\n").unwrap_or(lines.len());
        let colon = lines[..end].iter().position(|byte| *byte == b':')?;
        let name = &lines[..colon];
        // A blank in a name is an obsolete folded line, or no header at all.
        if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
            return None;
        }
        headers.push((name.to_ascii_lowercase(), lines[colon + 1..end].trim_ascii()));
        lines = lines.get(end + 2..).unwrap_or_default();
    }
    // Stable: which of two lines of one name comes first may matter.
    headers.sort_by(|a, b| a.0.cmp(&b.0));
    Some(Part { headers, body })
}

/// The value of the parameter `boundary`, quoted or not.
fn boundary(content_type: &[u8]) -> Option<Vec<u8>> {
    let mut rest = &content_type[content_type.iter().position(|byte| *byte == b';')?..];
    let mut found = None;
    while let Some(parameter) = rest.strip_prefix(b";") {
        let equals = parameter.iter().position(|byte| *byte == b'=')?;
        let name = parameter[..equals].trim_ascii();
        let value;
        (value, rest) = parameter_value(&parameter[equals + 1..])?;
        if name.eq_ignore_ascii_case(b"boundary") && found.replace(value).is_some() {
            return None;
        }
        rest = rest.trim_ascii_start();
    }
    let usable = |it: &Vec<u8>| {
        let printable = it.iter().all(|byte| (0x20..0x7F).contains(byte));
        (1..=BOUNDARY_MAX).contains(&it.len()) && printable && it.last() != Some(&b' ')
    };
    found.filter(usable).filter(|_| rest.is_empty())
}

fn parameter_value(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let end = text.iter().position(|byte| *byte == b';').unwrap_or(text.len());
        return Some((text[..end].trim_ascii().to_vec(), &text[end..]));
    };
    let mut value = Vec::new();
    let mut at = 0;
    loop {
        match quoted.get(at)? {
            b'"' => return Some((value, &quoted[at + 1..])),
            b'\\' => {
                value.push(*quoted.get(at + 1)?);
                at += 2;
            }
            byte => {
                value.push(*byte);
                at += 1;
            }
        }
    }
}

/// Where `needle` begins in `hay`. A line's CR is rare in content, so looking for it comes first.
fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut at = 0;
    loop {
        at += hay.get(at..)?.iter().position(|byte| *byte == first)?;
        if hay[at..].starts_with(needle) {
            return Some(at);
        }
        at += 1;
    }
}

/// Without leading blanks; line ends stay, which `trim_ascii_start` would take too.
fn after_blanks(text: &[u8]) -> &[u8] {
    let begin = text.iter().position(|byte| !matches!(byte, b' ' | b'\t'));
    &text[begin.unwrap_or(text.len())..]
}

#[cfg(test)]
mod tests;
