//! JSON pointers (RFC 6901) to members that do not count. Checked when configured.

use std::fmt;
use std::sync::Arc;

/// Most pointers a route may have: each is looked at for every member on its way.
pub const POINTERS_MAX: usize = 32;

/// A list of pointers, cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pointers(Arc<[Vec<String>]>);

/// A pointer that cannot be used, named.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PointerError {
    /// It does not begin with a slash. (`$.a.b` is written `/a/b`.)
    NoSlash(String),
    /// A `~` that is not followed by `0` or `1`.
    Escape(String),
    /// It means the whole body: then every body would be the same.
    Whole,
    /// More than [`POINTERS_MAX`].
    TooMany(usize),
}

impl fmt::Display for PointerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSlash(pointer) => {
                write!(f, "JSON pointer {pointer:?} does not begin with a slash")
            }
            Self::Escape(pointer) => {
                write!(f, "JSON pointer {pointer:?}: a ~ must be followed by 0 or 1")
            }
            Self::Whole => f.write_str("the empty JSON pointer means the whole body"),
            Self::TooMany(count) => {
                write!(f, "{count} JSON pointers, at most {POINTERS_MAX} are allowed")
            }
        }
    }
}

impl std::error::Error for PointerError {}

impl Pointers {
    /// Parses pointers such as `/meta/sent_at`.
    ///
    /// # Errors
    /// [`PointerError`] names the pointer and what is wrong with it.
    pub fn parse<'a>(pointers: impl IntoIterator<Item = &'a str>) -> Result<Self, PointerError> {
        let pointers = pointers.into_iter().map(tokens).collect::<Result<Vec<_>, _>>()?;
        if POINTERS_MAX < pointers.len() {
            return Err(PointerError::TooMany(pointers.len()));
        }
        Ok(Self(pointers.into()))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The reference tokens of each pointer, never empty.
    pub(crate) fn all(&self) -> Vec<&[String]> {
        self.0.iter().map(Vec::as_slice).collect()
    }
}

impl fmt::Display for Pointers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, tokens) in self.0.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { " " })?;
            f.write_str(&text(tokens))?;
        }
        Ok(())
    }
}

/// The pointer with these tokens.
pub(crate) fn text(tokens: &[String]) -> String {
    let token = |it: &String| format!("/{}", it.replace('~', "~0").replace('/', "~1"));
    tokens.iter().map(token).collect()
}

fn tokens(pointer: &str) -> Result<Vec<String>, PointerError> {
    if pointer.is_empty() {
        return Err(PointerError::Whole);
    }
    let Some(rest) = pointer.strip_prefix('/') else {
        return Err(PointerError::NoSlash(pointer.to_owned()));
    };
    rest.split('/')
        .map(|token| {
            let bad = token.split('~').skip(1).any(|after| !after.starts_with(['0', '1']));
            if bad {
                return Err(PointerError::Escape(pointer.to_owned()));
            }
            // In this order, or `~01` would become a slash.
            Ok(token.replace("~1", "/").replace("~0", "~"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Case B36.
    #[test]
    fn a_wrong_pointer_is_refused_by_name_when_it_is_configured() {
        assert_eq!(Pointers::parse([""]), Err(PointerError::Whole));
        let error = Pointers::parse(["/a", "$.meta.sent_at"]).unwrap_err();
        assert_eq!(error, PointerError::NoSlash("$.meta.sent_at".into()));
        assert!(error.to_string().contains("$.meta.sent_at"));
        for bad in ["/a~", "/a~2", "/~~0"] {
            assert_eq!(Pointers::parse([bad]), Err(PointerError::Escape(bad.into())));
        }
        let many = vec!["/a"; POINTERS_MAX + 1];
        assert_eq!(Pointers::parse(many), Err(PointerError::TooMany(POINTERS_MAX + 1)));
    }

    #[test]
    fn tokens_are_decoded_as_the_standard_has_it() {
        let pointers = Pointers::parse(["/a~1b/m~0n/~01//0"]).unwrap();
        assert_eq!(pointers.all(), [["a/b", "m~n", "~1", "", "0"]]);
        assert_eq!(pointers.to_string(), "/a~1b/m~0n/~01//0");
    }
}
