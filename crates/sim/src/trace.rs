//! What happened in a run, for people.

use std::fmt;

use crate::ACTORS;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When, in milliseconds from the beginning of the world.
    pub at: u64,
    /// Who did it: an actor, or the world itself.
    pub who: usize,
    /// To which key.
    pub key: usize,
    /// What.
    pub text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, who, key, text } = self;
        write!(f, "{at:>8} ms  key {key}  ")?;
        if *who < ACTORS { write!(f, "actor {who}  {text}") } else { write!(f, "world    {text}") }
    }
}

/// The last `max` lines that are about `key`, or about anything.
pub fn shrunk(trace: &[Line], key: Option<usize>, max: usize) -> Vec<&Line> {
    let about = |line: &&Line| key.is_none_or(|key| line.key == key);
    let mut lines: Vec<&Line> = trace.iter().rev().filter(about).take(max).collect();
    lines.reverse();
    lines
}
