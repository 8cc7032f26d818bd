//! Making a store, and what is looked at before a connection is used: the settings without which a
//! server does not keep what it has confirmed, and whose tables it has.

use onlyonce_core::{Floor, Secret};
use onlyonce_store::OpenErrorKind::{Exists, Missing, Newer, Refused, Unavailable};
use onlyonce_store::{OpenError, OpenErrorKind, row};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use crate::error::text;
use crate::schema;

/// What a session begins every transaction with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checked {
    /// The `synchronous_commit` that was found to be enough.
    pub(crate) synchronous_commit: String,
    pub(crate) secret: Secret,
}

const SETTINGS: &str = "
SELECT current_setting('fsync'), current_setting('full_page_writes'),
  current_setting('synchronous_commit'), current_setting('synchronous_standby_names'),
  current_setting('transaction_read_only'), pg_is_in_recovery(),
  to_regclass('onlyonce.store') IS NOT NULL";

/// Which tables are not kept after a crash, and what we may not do with them.
const TABLES: &str = "
SELECT c.relname::text, c.relpersistence::text,
  has_table_privilege(c.oid, 'SELECT') AND (c.relname <> 'records' OR (
    has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'DELETE')))
  AND has_table_privilege(c.oid, 'UPDATE')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'onlyonce' AND c.relkind IN ('r', 'p')";

const STORE: &str = "SELECT version, secret FROM onlyonce.store";

/// Looks through a server and its tables.
pub(crate) async fn check(client: &Client, place: &str) -> Result<Checked, OpenError> {
    let settings = settings(client, place).await?;
    let refuse = |kind, text: String| Err(OpenError::new(kind, place, text));
    if !settings.has_store {
        let text = "there is no store in this database; `onlyonce store init` makes one";
        return refuse(Missing, text.to_owned());
    }
    for table in ask(client, place, TABLES).await? {
        let (name, persistence, may): (String, String, bool) =
            (table.get(0), table.get(1), table.get(2));
        if persistence != "p" {
            let text = format!(
                "table onlyonce.{name} is not kept after a crash: ALTER TABLE onlyonce.{name} SET \
                 LOGGED"
            );
            return refuse(Refused, text);
        }
        if !may {
            let text = format!(
                "we may not use table onlyonce.{name}: GRANT SELECT, INSERT, UPDATE, DELETE ON ALL \
                 TABLES IN SCHEMA onlyonce TO the role of this address"
            );
            return refuse(Refused, text);
        }
    }
    let rows = ask(client, place, STORE).await?;
    let Some(store) = rows.first() else {
        return refuse(Missing, "the store's row is gone".to_owned());
    };
    let version: i32 = store.get(0);
    if version != schema::VERSION {
        let known = schema::VERSION;
        let text = format!("its format is {version}, and this program knows {known}");
        return refuse(Newer, text);
    }
    let Ok(secret) = <[u8; 32]>::try_from(store.get::<_, &[u8]>(1)) else {
        return refuse(OpenErrorKind::Foreign, "its secret is none".to_owned());
    };
    let synchronous_commit = settings.synchronous_commit;
    Ok(Checked { synchronous_commit, secret: Secret::from_bytes(secret) })
}

/// Makes the tables.
pub(crate) async fn init(
    client: &mut Client,
    place: &str,
    secret: &[u8; 32],
    floor: Floor,
) -> Result<(), OpenError> {
    if settings(client, place).await?.has_store {
        let text = "there is a store already; it is left as it is";
        return Err(OpenError::new(Exists, place, text));
    }
    let schema = ask(client, place, "SELECT to_regnamespace('onlyonce') IS NULL").await?;
    let is_missing = schema.first().is_some_and(|row| row.get(0));
    let make = async {
        let making = client.transaction().await?;
        if is_missing {
            making.batch_execute("CREATE SCHEMA onlyonce").await?;
        }
        making.batch_execute(schema::TABLES).await?;
        let (slots, secret) = (i32::from(schema::SLOTS) - 1, &secret[..]);
        making.query_typed(schema::MAKE_SLOTS, &[(&slots, Type::INT4)]).await?;
        let floor = row::millis(floor.time());
        let store: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] =
            [(&schema::VERSION, Type::INT4), (&secret, Type::BYTEA), (&floor, Type::INT8)];
        making.query_typed(schema::MAKE_STORE, &store).await?;
        making.commit().await
    };
    make.await.map_err(|error| OpenError::new(Unavailable, place, text(&error)))
}

struct Settings {
    synchronous_commit: String,
    has_store: bool,
}

async fn settings(client: &Client, place: &str) -> Result<Settings, OpenError> {
    let rows = ask(client, place, SETTINGS).await?;
    let Some(found) = rows.first() else {
        return Err(OpenError::new(Unavailable, place, "it does not tell its settings"));
    };
    let setting = |at: usize| found.get::<_, String>(at);
    let refuse = |text: String| Err(OpenError::new(Refused, place, text));
    if found.get(5) {
        return refuse("it is a standby (in recovery); name the primary".to_owned());
    }
    if setting(4) != "off" {
        let text = "it is read-only: default_transaction_read_only must be off for our role";
        return refuse(text.to_owned());
    }
    for (at, name) in ["fsync", "full_page_writes"].into_iter().enumerate() {
        if setting(at) != "on" {
            return refuse(format!(
                "{name} is {}, and it must be on: a crash would lose or tear what was confirmed",
                setting(at)
            ));
        }
    }
    let (commit, standbys) = (setting(2), setting(3));
    if commit == "off" {
        return refuse(
            "synchronous_commit is off for our role, and it must be on: a crash would lose what \
             was confirmed"
                .to_owned(),
        );
    }
    if commit == "local" && !standbys.is_empty() {
        return refuse(format!(
            "synchronous_commit is local for our role, though synchronous_standby_names is \
             {standbys:?}: a failover would lose what was confirmed; it must be on"
        ));
    }
    Ok(Settings { synchronous_commit: commit, has_store: found.get(6) })
}

async fn ask(client: &Client, place: &str, sql: &str) -> Result<Vec<Row>, OpenError> {
    let asked = client.query_typed(sql, &[]).await;
    asked.map_err(|error| OpenError::new(Unavailable, place, text(&error)))
}
