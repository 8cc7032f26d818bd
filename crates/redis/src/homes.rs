//! Notices that another server has taken a master's place, and raises the floor then.
//!
//! A replica that is promoted may lack the last writes that its master confirmed. Which ones,
//! nobody can tell; but every key that carries a time at or before the failover can be refused.
//! Each bucket remembers on which history of writes it was last seen. A server with another
//! history that was a replica before is a failover.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use onlyonce_core::{Floor, Timestamp};
use onlyonce_store::StoreErrorKind;
use redis::Value;
use tokio::time::Instant;

use crate::error::{Fault, nonsense, not_opened};
use crate::layout::{BUCKETS, Layout};
use crate::link::Link;
use crate::map::{Map, Part};
use crate::script::{self, Script};

/// For how long after a failover a new key with a time is not taken: the caller may rely on a
/// floor that it read up to 30 s ago.
const HOLD: Duration = Duration::from_secs(31);

/// What is known of each bucket's server.
pub(crate) struct Homes {
    known: RwLock<Vec<Option<String>>>,
    /// One looks at a time.
    looking: tokio::sync::Mutex<()>,
    moved: Mutex<Option<Instant>>,
    check: Vec<u8>,
    key_ahead_max: Duration,
}

impl Homes {
    /// `check` is what the store's facts must have as its secret.
    pub(crate) fn new(secret: Vec<u8>, key_ahead_max: Duration) -> Self {
        Self {
            known: RwLock::new(vec![None; usize::from(BUCKETS)]),
            looking: tokio::sync::Mutex::new(()),
            moved: Mutex::new(None),
            check: secret,
            key_ahead_max,
        }
    }

    /// Whether new keys with a time have to wait, since a failover was just noticed.
    pub(crate) fn hold(&self) -> bool {
        let moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        moved.is_some_and(|at| at.elapsed() < HOLD)
    }

    /// Lets a connection be used for a bucket, once its server is known.
    pub(crate) async fn ensure(
        &self,
        bucket: u8,
        link: &Arc<Link>,
        map: &Map,
        layout: &Layout,
    ) -> Result<(), Fault> {
        if self.knows(bucket, link) {
            return Ok(());
        }
        let _turn = self.looking.lock().await;
        if self.knows(bucket, link) {
            return Ok(());
        }
        let facts = match map.server(Part::Store).await {
            Ok(server) => server.link(0).await.map_err(|error| not_opened(&error))?,
            Err(error) => return Err(not_opened(&error)),
        };
        self.check_secret(&facts, layout).await?;
        let buckets = map.neighbours(bucket).await;
        let changed = self.changed(&buckets, link, layout).await?;
        let was_known = changed.iter().any(|change| change.was_known);
        if was_known && link.told().was_promoted() {
            self.failover(&facts, layout).await?;
        }
        let history = link.told().history();
        let mut remember = redis::pipe();
        for change in &changed {
            remember.cmd("HSET").arg(layout.facts(change.bucket)).arg("history").arg(history);
        }
        if !changed.is_empty() {
            link.ask_all(&remember).await?;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for bucket in buckets {
            known[usize::from(bucket)] = Some(history.to_owned());
        }
        Ok(())
    }

    fn knows(&self, bucket: u8, link: &Link) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known[usize::from(bucket)].as_deref() == Some(link.told().history())
    }

    /// That the store is still the one that was opened.
    async fn check_secret(&self, facts: &Link, layout: &Layout) -> Result<(), Fault> {
        let mut command = redis::cmd("HGET");
        command.arg(layout.store()).arg("secret");
        let found = facts.ask(&command).await?;
        match script::bytes(found) {
            Some(Some(secret)) if secret == self.check => Ok(()),
            Some(Some(_)) => Err(lost(facts.place(), "another store has taken this one's place")),
            Some(None) | None => Err(lost(facts.place(), "the store is gone: it was emptied")),
        }
    }

    /// Buckets that were last seen on another history, or never.
    async fn changed(
        &self,
        buckets: &[u8],
        link: &Link,
        layout: &Layout,
    ) -> Result<Vec<Change>, Fault> {
        let mut ask = redis::pipe();
        for bucket in buckets {
            ask.cmd("HMGET").arg(layout.facts(*bucket)).arg("revision").arg("history");
        }
        let answers = link.ask_all(&ask).await?;
        let here = link.told().history();
        let seen = self.known.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut changed = Vec::new();
        for (bucket, answer) in buckets.iter().copied().zip(answers) {
            let Value::Array(parts) = answer else { return Err(nonsense(link.place())) };
            let mut parts = parts.into_iter().map(|part| script::bytes(part).flatten());
            let (revision, history) = (parts.next().flatten(), parts.next().flatten());
            if revision.is_none() {
                return Err(lost(link.place(), "a part of the store is gone: it was emptied"));
            }
            let kept = history.map(|history| String::from_utf8_lossy(&history).into_owned());
            // Somebody else may have noticed before; what this process has read before it is as
            // old as what the others had.
            let ours = seen[usize::from(bucket)].clone();
            let was_known = [&kept, &ours].into_iter().flatten().any(|known| known != here);
            if was_known || kept.is_none() {
                changed.push(Change { bucket, was_known });
            }
        }
        Ok(changed)
    }

    /// Refuses all keys with a time until now, for good.
    async fn failover(&self, facts: &Link, layout: &Layout) -> Result<(), Fault> {
        // Before the floor is raised, so that nothing slips in between.
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let now = Timestamp::from_millis(facts.now());
        raise(facts, layout, Floor::at(now.plus(self.key_ahead_max))).await
    }
}

struct Change {
    bucket: u8,
    was_known: bool,
}

/// Raises the store's floor.
pub(crate) async fn raise(facts: &Link, layout: &Layout, to: Floor) -> Result<(), Fault> {
    let floor = to.time().as_millis().to_be_bytes();
    let (word, _) = facts.run_for_word(Script::Floor, &[layout.store()], &[&floor]).await?;
    match word.as_str() {
        "done" => Ok(()),
        "gone" => Err(lost(facts.place(), "the store is gone: it was emptied")),
        _ => Err(nonsense(facts.place())),
    }
}

/// What was here is not here any more. Waiting does not help.
pub(crate) fn lost(place: &str, text: &str) -> Fault {
    Fault::new(StoreErrorKind::Damaged, format!("{place}: {text}"))
}
