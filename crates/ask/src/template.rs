//! Text with references in it: `${web.id}`, `${marker}`. `$${` stands for `${`.

use std::collections::BTreeSet;

/// A text whose references are known, and not yet what they stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Reference(String),
}

impl Template {
    /// Reads a text.
    ///
    /// # Errors
    /// A reference that does not end, or is empty; in words for the one who wrote it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut pieces, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find("${") {
            if let Some(before) = rest[..at].strip_suffix('$') {
                plain.push_str(before);
                plain.push_str("${");
                rest = &rest[at + 2..];
                continue;
            }
            plain.push_str(&rest[..at]);
            let Some((name, after)) = rest[at + 2..].split_once('}') else {
                return Err("`${` has no `}`; write `$${` where it is meant as it is".into());
            };
            let name = name.trim();
            if name.is_empty() {
                return Err("`${}` names nothing; write a reference such as `${web.id}`".into());
            }
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(Piece::Reference(name.to_owned()));
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }

    /// A text without references.
    pub fn plain(text: impl Into<String>) -> Self {
        Self(vec![Piece::Text(text.into())])
    }

    /// What it refers to.
    pub fn references(&self) -> BTreeSet<&str> {
        let references = self.0.iter().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Reference(name) => Some(name.as_str()),
        });
        references.collect()
    }

    /// The one reference that it is, with nothing around it.
    pub fn only(&self) -> Option<&str> {
        match &self.0[..] {
            [Piece::Reference(name)] => Some(name),
            _ => None,
        }
    }

    /// The text with its references as they are written.
    pub fn text(&self) -> String {
        let written = self.0.iter().map(|piece| match piece {
            Piece::Text(plain) => plain.replace("${", "$${"),
            Piece::Reference(name) => format!("${{{name}}}"),
        });
        written.collect()
    }

    /// The text.
    ///
    /// # Errors
    /// The first reference that nothing is known of.
    pub fn fill(&self, known: impl Fn(&str) -> Option<String>) -> Result<String, &str> {
        self.0.iter().try_fold(String::new(), |mut text, piece| {
            match piece {
                Piece::Text(plain) => text.push_str(plain),
                Piece::Reference(name) => text.push_str(&known(name).ok_or(name.as_str())?),
            }
            Ok(text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_filled_and_an_unknown_one_is_named() {
        let template = Template::parse("a${web.id}b$${c}${ x }").unwrap();
        assert_eq!(template.references(), ["web.id", "x"].into());
        let known = |name: &str| (name == "web.id").then(|| "1".to_owned());
        assert_eq!(template.fill(known), Err("x"));
        assert_eq!(template.fill(|_| Some("1".into())), Ok("a1b${c}1".into()));
        assert_eq!(Template::parse("").unwrap().fill(|_| None), Ok(String::new()));
        assert_eq!(Template::parse("$1 $$").unwrap().fill(|_| None), Ok("$1 $$".into()));
    }

    #[test]
    fn a_reference_without_an_end_or_a_name_is_refused() {
        for wrong in ["${web.id", "a ${} b"] {
            assert!(Template::parse(wrong).unwrap_err().contains("write"), "{wrong}");
        }
    }
}
