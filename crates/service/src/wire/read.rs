//! From the bytes of a body to a document, or to the member that is wrong.

use serde::de::DeserializeOwned;

/// A document that is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invalid {
    /// The member, as a path such as `reply.status`; empty if it is the document itself.
    pub(crate) field: String,
    /// What is wrong with it.
    pub(crate) text: String,
}

impl Invalid {
    /// This member, and what is wrong with it.
    pub(crate) fn new(field: &str, text: impl Into<String>) -> Self {
        Self { field: field.to_owned(), text: text.into() }
    }
}

/// Reads a document.
///
/// # Errors
/// [`Invalid`] names the first member that is wrong.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Invalid> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let read = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let (path, text) = (error.path().to_string(), error.inner().to_string());
        let path = path.trim_start_matches('.');
        let field = match named(&text) {
            Some(name) if path.is_empty() => name.to_owned(),
            Some(name) if !path.ends_with(name) => format!("{path}.{name}"),
            Some(_) | None => path.to_owned(),
        };
        Invalid { field, text }
    })?;
    json.end().map_err(|error| Invalid::new("", error.to_string()))?;
    Ok(read)
}

/// A member that is missing, not known or there twice has no path of its own; the parser's words
/// name it.
fn named(text: &str) -> Option<&str> {
    let words = ["missing field `", "unknown field `", "duplicate field `"];
    let rest = words.iter().find_map(|it| text.strip_prefix(it))?;
    rest.split_once('`').map(|(name, _)| name)
}
