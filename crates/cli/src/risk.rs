//! Risks that `--accept-risk` takes: what a doctor refuses, and a person wants all the same.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use onlyonce_store::Warning;

use crate::place::Place;

/// For all stores that this process opens: the flag is one of the command, not of a store.
static TAKEN: OnceLock<Vec<Risk>> = OnceLock::new();

/// The name of a risk that some kind of store knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Risk(&'static str);

impl Risk {
    /// As it is written in the address of a store too.
    pub(crate) const fn name(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for Risk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl FromStr for Risk {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Place::risks().find(|name| *name == text).map(Self).ok_or_else(|| {
            let all: Vec<&str> = Place::risks().collect();
            format!(
                "it is no risk that can be accepted; there are {}. Whatever else a doctor refuses, \
                 such as a read-only server or a wrong secret, can never be",
                all.join(", ")
            )
        })
    }
}

/// Takes them, once, before any store is opened.
pub(crate) fn take(risks: Vec<Risk>) {
    let _ = TAKEN.set(risks);
}

/// Those that were taken.
pub(crate) fn taken() -> &'static [Risk] {
    TAKEN.get().map_or(&[], Vec::as_slice)
}

/// Those of them that a store which was opened does not have.
pub(crate) fn untaken(warnings: &[Warning]) -> impl Iterator<Item = Risk> {
    let has = |risk: &Risk| warnings.iter().any(|warning| warning.risk == Some(risk.name()));
    taken().iter().copied().filter(move |risk| !has(risk))
}
