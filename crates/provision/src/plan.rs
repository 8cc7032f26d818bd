//! A plan: the resources of a file in TOML, what they are made of, and what they wait for.

mod calls;
mod kinds;
mod order;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use onlyonce_core::Policy;
use onlyonce_listen::text::ConfigError;

use crate::kind::Kind;
use crate::template::Template;

/// The most resources of a plan.
pub(crate) const RESOURCES_MAX: usize = 10_000;

/// Resources, each with what it needs to be made.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) name: String,
    /// The folder that paths and scripts start from: the one of the file.
    pub(crate) folder: PathBuf,
    /// In the order of the file.
    pub(crate) resources: Vec<Resource>,
}

/// One resource of a plan.
#[derive(Clone, Debug)]
pub struct Resource {
    pub(crate) key: String,
    pub(crate) kind: Kind,
    /// What must not change once it is made.
    pub(crate) inputs: BTreeMap<String, Template>,
    /// The resources that must be ready before it is made, by their place in the plan.
    pub(crate) after: Vec<usize>,
    pub(crate) policy: Policy,
    /// How long one apply waits for it to be ready.
    pub(crate) ready_within: Duration,
}

impl Plan {
    /// Reads a plan from its file.
    ///
    /// # Errors
    /// The file cannot be read, or a mistake in it: with file, line and field.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let name = file.display().to_string();
        let text = std::fs::read_to_string(file).map_err(|error| ConfigError::of(&name, error))?;
        let folder = match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            Some(_) | None => Path::new("."),
        };
        let folder = folder.canonicalize().map_err(|error| ConfigError::of(&name, error))?;
        Self::parse(&name, &text, &folder)
    }

    /// Reads a plan from its text; `name` is what mistakes name, `folder` what paths start from.
    ///
    /// # Errors
    /// A mistake, with its line and field.
    pub fn parse(name: &str, text: &str, folder: &Path) -> Result<Self, ConfigError> {
        table::parse(name, text, folder)
    }

    /// Its name: part of every marker that it leaves.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its resources, in the order of the file.
    pub fn resources(&self) -> &[Resource] {
        &self.resources
    }

    pub(crate) fn find(&self, key: &str) -> Option<(usize, &Resource)> {
        self.resources.iter().enumerate().find(|(_, resource)| resource.key == key)
    }
}

impl Resource {
    /// Its key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The name of its kind.
    pub fn kind(&self) -> &'static str {
        self.kind.name()
    }

    /// Its inputs, or the key of the first resource whose id is not known yet.
    pub(crate) fn filled(
        &self,
        id: impl Fn(&str) -> Option<String>,
    ) -> Result<BTreeMap<String, String>, String> {
        let known = |reference: &str| id(reference.strip_suffix(".id")?);
        let inputs = self.inputs.iter().map(|(name, template)| {
            let filled = template.fill(known);
            let filled = filled.map_err(|reference| reference.trim_end_matches(".id").to_owned());
            Ok((name.clone(), filled?))
        });
        inputs.collect()
    }
}
