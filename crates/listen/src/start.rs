//! Why something that was to listen could not begin.

use std::fmt;

/// It could not begin. Nothing was accepted.
#[derive(Debug)]
pub struct StartError {
    place: String,
    text: String,
}

impl StartError {
    /// What is wrong, at this address or with this file.
    pub fn new(place: impl Into<String>, text: impl fmt::Display) -> Self {
        Self { place: place.into(), text: text.to_string() }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

impl std::error::Error for StartError {}
