//! Bringing an older store to what this program would make: its tables, and its functions in SQL.

use onlyonce_store::OpenErrorKind::{Refused, Unavailable};
use onlyonce_store::{Checks, Formats, OpenError, format};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use crate::address::Address;
use crate::door;
use crate::error::text;
use crate::postgres::Postgres;
use crate::schema;
use crate::session::Way;

/// No wait for somebody else's lock is longer, since all others would wait behind it; and what is
/// confirmed here is kept.
const BOUNDS: &str = "SET LOCAL lock_timeout = '20s'; SET LOCAL synchronous_commit = on";
/// What to do where the role may not.
const OWNER: &str = "only the owner of schema onlyonce and its tables can change them: name the \
                     owner in the address, or GRANT the role that owns them TO the role of this \
                     address";
/// What to do where a lock was not to be had.
const LOCKED: &str = "a transaction or another migration is open on it: end it, and say it again";

impl Postgres {
    /// The format of the store's tables, and the one that this program knows.
    ///
    /// # Errors
    /// As [`Postgres::open`], but for the format.
    pub async fn formats(address: Address) -> Result<Formats, OpenError> {
        let way = Way::to(address);
        let client = way.connect().await?;
        look(&client, &way).await
    }

    /// Brings the tables to the format that this program knows, in one transaction; the address is
    /// that of their owner, and no other process uses the store. Returns what was found: nothing
    /// was done if that is the newest.
    ///
    /// # Errors
    /// As [`Postgres::open`], the tables are newer ones, or the role does not own them. Nothing is
    /// changed, or, where the answer to the commit was lost, all of it may be: say it again.
    pub async fn migrate(address: Address) -> Result<Formats, OpenError> {
        let way = Way::to(address);
        let mut client = way.connect().await?;
        migrate(&mut client, &way, &schema::STEPS).await
    }

    /// Makes the functions anew, unless they are those of this program; whether it has.
    ///
    /// # Errors
    /// As [`Postgres::install_functions`].
    pub async fn renew_functions(address: Address) -> Result<bool, OpenError> {
        let way = Way::to(address);
        let mut client = way.connect().await?;
        let asked = client.query_typed(schema::FUNCTIONS_MARK, &[]).await;
        let asked = asked.map_err(|error| refusal(&way, &error))?;
        let mark: Option<&str> = asked.first().and_then(|row| row.get(0));
        if mark == Some(&*format::mark(schema::FUNCTIONS)) {
            return Ok(false);
        }
        door::install(&mut client, &way).await.map(|()| true)
    }
}

/// Looks at all but the format, and finds that.
async fn look(client: &Client, way: &Way) -> Result<Formats, OpenError> {
    let mut checks = Checks::at(&*way.place);
    let looked = door::stored(client, way, &mut checks).await;
    checks.verdict()?;
    looked.map(|(_, store)| door::formats(&store))
}

/// Takes those of the steps that were not taken yet.
async fn migrate(client: &mut Client, way: &Way, steps: &[&str]) -> Result<Formats, OpenError> {
    look(client, way).await?;
    let refused = |error: Error| refusal(way, &error);
    let making = client.transaction().await.map_err(refused)?;
    making.batch_execute(BOUNDS).await.map_err(refused)?;
    let locked = making.query_typed(schema::LOCK_STORE, &[]).await.map_err(refused)?;
    let found = locked.first().map_or(0, |row| row.get::<_, i32>(0));
    let known = i32::try_from(steps.len()).unwrap_or(i32::MAX);
    let formats = Formats { found: found.into(), known: known.into() };
    let missing = formats.missing(&way.place)?;
    if missing.is_empty() {
        return Ok(formats);
    }
    for step in &steps[missing] {
        making.batch_execute(step).await.map_err(refused)?;
    }
    let set = making.query_typed(schema::SET_VERSION, &[(&known, Type::INT4)]).await;
    set.map_err(refused)?;
    // They know their format, and whoever calls them is refused until they do.
    door::make_functions(&making).await.map_err(refused)?;
    making.commit().await.map_err(|error| lost(way, &error))?;
    Ok(formats)
}

/// That the answer to a commit was not heard.
pub(crate) fn lost(way: &Way, error: &Error) -> OpenError {
    let text = format!("{}: nobody knows whether it was done: say it again", text(error));
    OpenError::new(Unavailable, &*way.place, text)
}

/// Why nothing was changed.
pub(crate) fn refusal(way: &Way, error: &Error) -> OpenError {
    let (kind, hint) = match error.code() {
        Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => (Refused, OWNER),
        Some(code) if *code == SqlState::LOCK_NOT_AVAILABLE => (Unavailable, LOCKED),
        Some(_) | None => (Unavailable, "nothing was changed"),
    };
    OpenError::new(kind, &*way.place, format!("{}: {hint}", text(error)))
}

#[cfg(test)]
mod tests;
