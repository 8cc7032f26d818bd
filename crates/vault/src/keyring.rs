//! Master keys, and sealing and opening with them.

use std::fmt;

use onlyonce_core::{KeyId, Revision};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::{digest, hmac};

/// What sealed content begins with; no content of ours does.
const MAGIC: &[u8; 8] = b"1x-sealA";
const ID: usize = 4;
const TAG: usize = 16;
/// How much longer content becomes, in bytes.
pub(crate) const OVERHEAD: usize = MAGIC.len() + ID + NONCE_LEN + TAG;

/// What stands for the name of a key where an answer is not encrypted.
pub const PLAIN: &str = "plain";

/// Master keys: the first seals, all of them open; with none nothing is sealed. Cheap to move,
/// never shown.
pub struct Keyring(Vec<Master>);

struct Master {
    id: [u8; ID],
    key: hmac::Key,
}

/// A key file that cannot be used, by its line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyringError {
    /// There is no key in it.
    Empty,
    /// A line, counted from 1, that is no key.
    Line(usize),
}

impl fmt::Display for KeyringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => {
                f.write_str("there is no key in it; make one with `openssl rand -hex 32`")
            }
            Self::Line(line) => write!(f, "line {line}: a key is 64 hexadecimal digits"),
        }
    }
}

impl std::error::Error for KeyringError {}

/// Why content does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// It was sealed with a key that is not here.
    Unknown([u8; ID]),
    /// It is not what was sealed, or stands in another record.
    Wrong,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(id) => {
                write!(
                    f,
                    "the answer was encrypted with key {}, which is not in the key file",
                    hex(id)
                )
            }
            Self::Wrong => f.write_str("the encrypted answer was changed"),
        }
    }
}

impl Keyring {
    /// Reads a key file: 64 hexadecimal digits a line, the newest key first; empty lines and
    /// those that begin with `#` do not count.
    ///
    /// # Errors
    /// [`KeyringError`] names the line.
    pub fn parse(text: &str) -> Result<Self, KeyringError> {
        let lines = text.lines().map(str::trim).enumerate();
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let masters = lines.map(|(at, line)| {
            unhex(line).map(|key| Master::new(&key)).ok_or(KeyringError::Line(at + 1))
        });
        let masters = masters.collect::<Result<Vec<_>, _>>()?;
        if masters.is_empty() { Err(KeyringError::Empty) } else { Ok(Self(masters)) }
    }

    /// No key: what was sealed is told from what was not, and is not opened.
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Whether there is a key that seals.
    pub const fn seals(&self) -> bool {
        !self.0.is_empty()
    }

    /// What names the key that seals, [`PLAIN`] if none does; it says nothing about the key.
    pub fn newest(&self) -> String {
        self.0.first().map_or_else(|| PLAIN.to_owned(), |master| hex(&master.id))
    }

    /// Whether the key with this name is here.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|master| hex(&master.id) == name)
    }

    /// The names of all, the newest first.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|master| hex(&master.id)).collect()
    }

    /// Which key this was sealed with, be it here or not; [`PLAIN`] for none.
    pub(crate) fn name_of(&self, content: &[u8]) -> String {
        let name = content.strip_prefix(MAGIC).and_then(|rest| rest.get(..ID));
        name.map_or_else(|| PLAIN.to_owned(), hex)
    }

    /// `None` if no key seals.
    pub(crate) fn seal(&self, id: KeyId, revision: Revision, content: &[u8]) -> Option<Vec<u8>> {
        let master = self.0.first()?;
        let mut nonce = [0; NONCE_LEN];
        if let Err(error) = getrandom::fill(&mut nonce) {
            panic!("the system has no random numbers to give: {error}");
        }
        let mut sealed = Vec::with_capacity(content.len() + OVERHEAD);
        sealed.extend_from_slice(MAGIC);
        sealed.extend_from_slice(&master.id);
        sealed.extend_from_slice(&nonce);
        let mut body = content.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        // It fails only above 64 GiB.
        let done = master.of(id, revision).seal_in_place_append_tag(nonce, Aad::empty(), &mut body);
        assert!(done.is_ok(), "content fits");
        sealed.extend_from_slice(&body);
        Some(sealed)
    }

    /// `None` if it was never sealed.
    pub(crate) fn open(
        &self,
        id: KeyId,
        revision: Revision,
        sealed: &[u8],
    ) -> Option<Result<Vec<u8>, Closed>> {
        let rest = sealed.strip_prefix(MAGIC)?;
        let Some((head, body)) = rest.split_at_checked(ID + NONCE_LEN) else {
            return Some(Err(Closed::Wrong));
        };
        let (name, nonce) = head.split_at(ID);
        Some(self.opened(id, revision, name, nonce, body))
    }

    fn opened(
        &self,
        id: KeyId,
        revision: Revision,
        name: &[u8],
        nonce: &[u8],
        body: &[u8],
    ) -> Result<Vec<u8>, Closed> {
        let Some(master) = self.0.iter().find(|master| master.id == name) else {
            return Err(Closed::Unknown(name.try_into().unwrap_or_default()));
        };
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Closed::Wrong)?;
        let mut body = body.to_vec();
        let key = master.of(id, revision);
        let opened = key.open_in_place(nonce, Aad::empty(), &mut body);
        let length = opened.map_err(|_| Closed::Wrong)?.len();
        body.truncate(length);
        Ok(body)
    }
}

impl Master {
    fn new(key: &[u8; 32]) -> Self {
        let mut id = [0; ID];
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"onlyonce key name");
        context.update(key);
        id.copy_from_slice(&context.finish().as_ref()[..ID]);
        Self { id, key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    /// The key of one write of one record.
    fn of(&self, id: KeyId, revision: Revision) -> LessSafeKey {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(b"onlyonce reply");
        context.update(id.as_bytes());
        context.update(&revision.get().to_le_bytes());
        let key = UnboundKey::new(&AES_256_GCM, context.sign().as_ref());
        // HMAC-SHA-256 gives the 32 bytes that AES-256 takes.
        LessSafeKey::new(key.unwrap_or_else(|_| unreachable!("the key has its length")))
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} keys, newest {})", self.0.len(), self.newest())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "1111111111111111111111111111111111111111111111111111111111111111";
    const TWO: &str = "2222222222222222222222222222222222222222222222222222222222222222";

    fn id(number: u8) -> KeyId {
        KeyId::from_bytes([number; 16])
    }

    fn revision(number: u64) -> Revision {
        Revision::new(number).unwrap()
    }

    #[test]
    fn content_opens_only_in_its_own_record_and_unchanged() {
        let keys = Keyring::parse(ONE).unwrap();
        let sealed = keys.seal(id(1), revision(5), b"pan 4242").unwrap();
        assert_eq!(sealed.len(), 8 + OVERHEAD);
        assert!(!sealed.windows(4).any(|it| it == b"4242"));
        let open = |id, revision, sealed: &[u8]| keys.open(id, revision, sealed).unwrap();
        assert_eq!(open(id(1), revision(5), &sealed), Ok(b"pan 4242".to_vec()));
        assert_eq!(open(id(2), revision(5), &sealed), Err(Closed::Wrong));
        assert_eq!(open(id(1), revision(6), &sealed), Err(Closed::Wrong));
        for at in MAGIC.len()..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(open(id(1), revision(5), &changed).is_err(), "byte {at}");
        }
        for length in MAGIC.len()..sealed.len() {
            assert!(open(id(1), revision(5), &sealed[..length]).is_err());
        }
        assert_eq!(keys.open(id(1), revision(5), b"never sealed"), None);
        let again = keys.seal(id(1), revision(5), b"pan 4242").unwrap();
        assert_ne!(sealed, again, "not even twice the same");
    }

    #[test]
    fn keys_can_be_changed_and_a_missing_one_is_named() {
        let old = Keyring::parse(ONE).unwrap();
        let sealed = old.seal(id(1), revision(5), b"x").unwrap();
        let both = Keyring::parse(&format!("# newest first\n\n{TWO}\n{ONE}\n")).unwrap();
        assert_eq!(both.open(id(1), revision(5), &sealed), Some(Ok(b"x".to_vec())));
        assert!(both.has(&old.newest()) && both.newest() != old.newest());
        let new = Keyring::parse(TWO).unwrap();
        let closed = new.open(id(1), revision(5), &sealed).unwrap().unwrap_err();
        assert!(closed.to_string().contains(&old.newest()), "{closed}");
    }

    #[test]
    fn a_key_file_that_cannot_be_used_is_refused_by_line() {
        assert_eq!(Keyring::parse("# none\n").unwrap_err(), KeyringError::Empty);
        let text = format!("{ONE}\nsecret\n");
        assert_eq!(Keyring::parse(&text).unwrap_err(), KeyringError::Line(2));
        assert!(!format!("{:?}", Keyring::parse(ONE).unwrap()).contains("1111"));
    }
}
