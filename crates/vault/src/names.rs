//! The names of the keys that kept answers may need, in the store itself, so that whoever lacks a
//! key is told before it meets an answer that it cannot open.
//!
//! They are a record under an id that no key has, written as every record is: by a swap from the
//! revision that was read, on disk before it is confirmed, in every kind of store. Time ends it
//! never, and [`Encrypted`](crate::Encrypted) shows it to nobody.
//!
//! Nothing but help depends on them. An answer that cannot be opened is an error whatever stands
//! here, and its operation never runs again; what would be lost is the answer, with a key that was
//! thrown away too early. So a name is there before the first answer is encrypted with its key,
//! each process that may encrypt says again and again that it does ([`EVERY`]), and a name is taken
//! away only when nobody has said so for long enough ([`QUIET`]) before somebody began to look at
//! all answers, and has found none.

use std::fmt::Write as _;
use std::time::Duration;

use onlyonce_core::{KeyId, Revision, Timestamp};
use onlyonce_store::{Filter, Store, StoreError, StoreErrorKind, Swap, own, transaction};

use crate::PLAIN;
use crate::store::content;

/// Where they are.
pub(crate) const ID: KeyId = transaction::NAMES;

/// How often a process that may encrypt says which key it does that with.
pub const EVERY: Duration = Duration::from_secs(60);
/// A key that nobody has named for so long is one that no process encrypts with any more: several
/// times [`EVERY`], so that one who could not say it once is not taken for gone.
pub const QUIET: Duration = Duration::from_secs(180);
/// As many names as there can be; each change of the key makes one, and a pass takes them away.
const NAMES_MAX: usize = 1_000;
/// How often others may be faster.
const TRIES: u32 = 32;

/// The names as they were read, in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    list: Vec<Name>,
    /// The revision they are replaced by.
    revision: Option<Revision>,
}

/// A key, and until when somebody has encrypted with it, by the store's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// What [`Keyring::newest`](crate::Keyring::newest) says, or [`PLAIN`].
    pub name: String,
    /// When a process has last said that it uses it.
    pub used: Timestamp,
}

/// What became of taking names away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// No kept answer needs another key.
    Done,
    /// Somebody may still encrypt with this one, so it stays, and the others with it.
    Used(Name),
}

impl Names {
    /// Those that stand there.
    ///
    /// # Errors
    /// What the store says; [`StoreErrorKind::Damaged`] too if they are not understood.
    pub async fn read(store: &dyn Store) -> Result<Self, StoreError> {
        let Some(record) = store.get(ID).await? else { return Ok(Self::default()) };
        let text = content(&record).and_then(|it| std::str::from_utf8(it).ok());
        let list = text.and_then(|text| text.lines().map(parsed).collect::<Option<Vec<_>>>());
        let list = list.filter(|list| !list.is_empty() && list.len() <= NAMES_MAX);
        let list = list.ok_or_else(|| {
            let text = "the names of its keys are not understood; a newer onlyonce wrote them";
            StoreError::new(StoreErrorKind::Damaged, text)
        })?;
        Ok(Self { list, revision: Some(record.revision) })
    }

    /// Whether nothing was ever encrypted.
    pub const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|it| &*it.name)
    }

    /// The one that came last: whose holders encrypt anew what others have encrypted, so that two
    /// who have different newest keys do not undo each other's work.
    pub fn latest(&self) -> Option<&str> {
        self.list.last().map(|it| &*it.name)
    }

    /// Another one than `newest` that somebody may have encrypted with at `now` or later.
    pub fn in_use(&self, newest: &str, now: Timestamp) -> Option<&Name> {
        self.list.iter().find(|it| it.name != newest && now < it.used.plus(QUIET))
    }

    /// Says that answers are encrypted with this key from `now` on, by the store's clock, and what
    /// stands there then; [`PLAIN`] says that they are not encrypted. Where there was no name, what
    /// was kept until now is not encrypted.
    ///
    /// # Errors
    /// What the store says: unless this was confirmed, nothing may be encrypted with the key.
    pub async fn begin(store: &dyn Store, name: &str, now: Timestamp) -> Result<Self, StoreError> {
        Self::say(store, name, now, true).await
    }

    /// Says it again. Who has to be put there anew was taken for gone, and is not the latest.
    ///
    /// # Errors
    /// What the store says.
    pub async fn go_on(store: &dyn Store, name: &str, now: Timestamp) -> Result<Self, StoreError> {
        Self::say(store, name, now, false).await
    }

    async fn say(
        store: &dyn Store,
        name: &str,
        now: Timestamp,
        is_start: bool,
    ) -> Result<Self, StoreError> {
        for _ in 0..TRIES {
            let mut names = Self::read(store).await?;
            let fresh = Name { name: name.to_owned(), used: now };
            match names.list.iter().position(|it| it.name == name) {
                // Somebody else has said it just now; one write serves all.
                Some(at) if now < names.list[at].used.plus(EVERY / 2) => return Ok(names),
                Some(at) => names.list[at] = fresh,
                None if is_start => {
                    if names.is_empty() && is_used(store).await? {
                        names.list.push(Name { name: PLAIN.to_owned(), used: now });
                    }
                    names.list.push(fresh);
                }
                None => names.list.insert(0, fresh),
            }
            if names.write(store, now).await? {
                return Ok(names);
            }
        }
        Err(busy())
    }

    /// Puts these there, in their order and beside what is there, for answers that are copied as
    /// they are.
    ///
    /// # Errors
    /// What the store says.
    pub async fn add(store: &dyn Store, more: &[String], now: Timestamp) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            let mut names = Self::read(store).await?;
            let new = more.iter().filter(|name| !names.iter().any(|it| it == *name));
            let new: Vec<_> = new.map(|name| Name { name: name.clone(), used: now }).collect();
            if new.is_empty() {
                return Ok(());
            }
            names.list.extend(new);
            if names.write(store, now).await? {
                return Ok(());
            }
        }
        Err(busy())
    }

    /// Takes all names away but `newest`, once a pass that began at `began`, by the store's clock,
    /// has looked at all answers and has found none that needs another key.
    ///
    /// # Errors
    /// What the store says.
    pub async fn settle(
        store: &dyn Store,
        newest: &str,
        began: Timestamp,
    ) -> Result<Settled, StoreError> {
        for _ in 0..TRIES {
            let mut names = Self::read(store).await?;
            if let Some(used) = names.in_use(newest, began) {
                return Ok(Settled::Used(used.clone()));
            }
            if names.iter().all(|name| name == newest) {
                return Ok(Settled::Done);
            }
            names.list.retain(|it| it.name == newest);
            if names.is_empty() {
                names.list.push(Name { name: newest.to_owned(), used: began });
            }
            // If anybody has said anything meanwhile, it is not as it was read.
            if names.write(store, began).await? {
                return Ok(Settled::Done);
            }
        }
        Err(busy())
    }

    /// In the place of what was read; whether that still stood.
    async fn write(&mut self, store: &dyn Store, now: Timestamp) -> Result<bool, StoreError> {
        if NAMES_MAX < self.list.len() {
            let text = "it names as many keys as it can: `onlyonce keys encryption --renew`";
            return Err(StoreError::new(StoreErrorKind::Full, text));
        }
        let mut text = String::new();
        for Name { name, used } in &self.list {
            let _ = writeln!(text, "{name} {}", used.as_millis());
        }
        let revision = Revision::after(self.revision, now);
        let record = own::record(revision, text, now);
        let is_done = store.swap(ID, self.revision, Some(record)).await? == Swap::Done;
        self.revision = Some(revision);
        Ok(is_done)
    }
}

fn parsed(line: &str) -> Option<Name> {
    let (name, used) = line.split_once(' ')?;
    let used = Timestamp::from_millis(used.parse().ok()?);
    Some(Name { name: name.to_owned(), used })
}

/// Whether there is a record of any key.
async fn is_used(store: &dyn Store) -> Result<bool, StoreError> {
    let page = store.list(Filter { limit: 1, ..Filter::default() }, None).await?;
    Ok(!(page.records.is_empty() && page.damaged.is_empty()))
}

fn busy() -> StoreError {
    let text = "others were faster each time that the names of keys were to be written";
    StoreError::new(StoreErrorKind::NotApplied, text)
}
