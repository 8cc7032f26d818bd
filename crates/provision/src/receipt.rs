//! What is kept of a resource that is there, and of one that was destroyed: replies of records.

use std::collections::BTreeMap;

use onlyonce_core::{Fingerprint, Reply, Secret};
use serde::{Deserialize, Serialize};

/// How it is known that a resource is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// It was made, and the answer said so.
    Created,
    /// It was there, with our marker, when it was looked for.
    Found,
    /// A person has said that it is this resource.
    Told,
}

/// A resource that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// What it is known by where it is.
    pub id: String,
    /// How that is known.
    pub how: How,
    /// A digest of each input that it was made with, to name those that differ later.
    pub(crate) inputs: BTreeMap<String, String>,
}

/// A resource that was destroyed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departure {
    /// What it was known by where it was.
    pub id: String,
    /// Who has destroyed it, or has said that it is gone.
    pub by: String,
    /// Why.
    pub why: String,
}

impl Departure {
    pub(crate) fn reply(&self) -> Reply {
        // Three strings: there is nothing in it that cannot be written.
        Reply::kept(200, serde_json::to_vec(self).unwrap_or_default())
    }

    /// What a reply says; `None` if it was not made here, or is not kept.
    pub(crate) fn of(reply: &Reply) -> Option<Self> {
        serde_json::from_slice(reply.content()?).ok()
    }
}

/// The digits of an input's digest: it only names what has changed, the fingerprint decides.
const DIGITS: usize = 16;
/// The rule that fingerprints of resources are made by.
const VERSION: u8 = 1;

impl Receipt {
    pub(crate) fn reply(&self) -> Reply {
        let status = match self.how {
            How::Created => 201,
            How::Found | How::Told => 200,
        };
        // Strings and maps of strings: there is nothing in it that cannot be written.
        Reply::kept(status, serde_json::to_vec(self).unwrap_or_default())
    }

    /// What a reply says; `None` if it was not made here, or is not kept.
    pub(crate) fn of(reply: &Reply) -> Option<Self> {
        serde_json::from_slice(reply.content()?).ok()
    }

    /// The inputs that are not as they were.
    pub(crate) fn changed(&self, now: &BTreeMap<String, String>) -> Vec<String> {
        let names = self.inputs.keys().chain(now.keys());
        let mut changed: Vec<String> =
            names.filter(|name| self.inputs.get(*name) != now.get(*name)).cloned().collect();
        changed.sort();
        changed.dedup();
        changed
    }
}

/// A digest of each input, with the store's secret: an input may be a password.
pub(crate) fn digests(
    secret: &Secret,
    inputs: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let key = secret.derive("provision inputs");
    let digest = |name: &str, value: &str| {
        let mut hasher = blake3::Hasher::new_keyed(&key);
        part(&mut hasher, name);
        part(&mut hasher, value);
        hasher.finalize().to_hex()[..DIGITS].to_owned()
    };
    inputs.iter().map(|(name, value)| (name.clone(), digest(name, value))).collect()
}

/// The digest of all that must not change.
pub(crate) fn fingerprint(
    secret: &Secret,
    kind: &str,
    inputs: &BTreeMap<String, String>,
) -> Fingerprint {
    let mut hasher = blake3::Hasher::new_keyed(&secret.derive("provision fingerprint"));
    part(&mut hasher, kind);
    for (name, value) in inputs {
        part(&mut hasher, name);
        part(&mut hasher, value);
    }
    Fingerprint::new(VERSION, *hasher.finalize().as_bytes())
}

fn part(hasher: &mut blake3::Hasher, text: &str) {
    hasher.update(&(text.len() as u64).to_be_bytes());
    hasher.update(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_has_changed_is_named_and_no_value_is_kept() {
        let secret = Secret::from_bytes([7; 32]);
        let then = inputs(&[("password", "geheim"), ("size", "small"), ("zone", "a")]);
        let receipt =
            Receipt { id: "i-1".into(), how: How::Created, inputs: digests(&secret, &then) };
        let reply = receipt.reply();
        assert!(!String::from_utf8_lossy(reply.content().unwrap()).contains("geheim"));
        assert_eq!(Receipt::of(&reply), Some(receipt.clone()));
        let now = inputs(&[("password", "geheim"), ("size", "large"), ("disk", "1")]);
        let now = digests(&secret, &now);
        assert_eq!(receipt.changed(&now), ["disk", "size", "zone"]);
        assert_eq!(Receipt::of(&Reply::not_kept(201)), None);
    }

    #[test]
    fn a_fingerprint_depends_on_kind_names_and_values() {
        let secret = Secret::from_bytes([7; 32]);
        let one = fingerprint(&secret, "file", &inputs(&[("a", "bc")]));
        assert_ne!(one, fingerprint(&secret, "file", &inputs(&[("ab", "c")])));
        assert_ne!(one, fingerprint(&secret, "command", &inputs(&[("a", "bc")])));
        assert_eq!(one, fingerprint(&secret, "file", &inputs(&[("a", "bc")])));
    }
}
