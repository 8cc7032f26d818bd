//! The door: only the stores of one set, and all of them, are opened as one.

use std::collections::BTreeMap;
use std::sync::Arc;

use onlyonce_core::Secret;
use onlyonce_store::{OpenError, OpenErrorKind, Store, StoreError};

use crate::map::MEMBERS_MAX;
use crate::seat::Seat;
use crate::spread::{Spread, Steady};

/// A store that is named as a member.
pub struct Given {
    /// Its address, without a password.
    pub name: String,
    /// It, open.
    pub store: Arc<dyn Store>,
    /// Its secret.
    pub secret: Secret,
}

impl Spread {
    /// Opens the stores of a set as one, whatever their order. Stores that are to join it may be
    /// among them.
    ///
    /// # Errors
    /// [`OpenErrorKind::Missing`]: one of them has no seat, or a member is not among them.
    /// [`OpenErrorKind::Refused`]: they do not belong together, or are too many.
    /// [`OpenErrorKind::Unavailable`]: one of them cannot be read.
    pub async fn open(given: Vec<Given>, steady: Steady) -> Result<Self, OpenError> {
        let begun = steady();
        let Some(first) = given.first() else {
            let text = "no store is named: a line for each is needed";
            return Err(OpenError::new(OpenErrorKind::Missing, "the set", text));
        };
        if MEMBERS_MAX < given.len() {
            let text = format!("a set has at most {MEMBERS_MAX} members");
            return Err(OpenError::new(OpenErrorKind::Refused, "the set", text));
        }
        let mut members = BTreeMap::new();
        let mut named: BTreeMap<u32, &str> = BTreeMap::new();
        let mut newest: Option<Seat> = None;
        for it in &given {
            let refused = |text: String| OpenError::new(OpenErrorKind::Refused, &*it.name, text);
            let seat = seat(it).await?;
            if it.secret != first.secret || newest.as_ref().is_some_and(|one| one.set != seat.set) {
                let text = format!("it is not of the same set as {}", first.name);
                return Err(refused(text));
            }
            if let Some(other) = named.insert(seat.own, &it.name) {
                return Err(refused(format!("it is member {}, and so is {other}", seat.own)));
            }
            members.insert(seat.own, Arc::clone(&it.store));
            if newest.as_ref().is_none_or(|one| one.map.version() < seat.map.version()) {
                newest = Some(seat);
            }
        }
        let newest = newest.ok_or_else(|| missing(first, NO_SEAT))?;
        if let Some(number) = newest.map.all().iter().find(|number| !members.contains_key(number)) {
            let text = format!("member {number} of the set is not named: a key may live there");
            return Err(OpenError::new(OpenErrorKind::Missing, "the set", text));
        }
        Ok(Self::new(members, newest, begun, steady))
    }
}

const NO_SEAT: &str = "it belongs to no set: `onlyonce store spread` lets it join";

async fn seat(given: &Given) -> Result<Seat, OpenError> {
    let unread = |error: StoreError| {
        OpenError::new(OpenErrorKind::Unavailable, &*given.name, error.to_string())
    };
    Seat::read(&*given.store).await.map_err(unread)?.ok_or_else(|| missing(given, NO_SEAT))
}

fn missing(given: &Given, text: &str) -> OpenError {
    OpenError::new(OpenErrorKind::Missing, &*given.name, text)
}
