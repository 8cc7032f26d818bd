//! Making a store, and what is looked at before a connection is used: the settings without which a
//! server does not keep what it has confirmed, and whose tables it has.

use onlyonce_core::{Floor, Secret};
use onlyonce_store::OpenErrorKind::{Exists, Foreign, Missing, Refused, Unavailable};
use onlyonce_store::{Check, Checks, FORMAT, Formats, Need, OpenError, Warning, format, row};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Row, Transaction};

use crate::address::{Address, CONNECT_MAX};
use crate::error::text;
use crate::migrate::{lost, refusal};
use crate::notice;
use crate::schema;
use crate::session::Way;

const SERVER: Need = Need::new("server", "answers");
const PRIMARY: Need = Need::new("primary", "yes");
const READ_ONLY: Need = Need::new("transaction_read_only", "off");
const FSYNC: Need = Need::new("fsync", "on");
const FULL_PAGE_WRITES: Need = Need::new("full_page_writes", "on");
const SYNCHRONOUS_COMMIT: Need =
    Need::new("synchronous_commit", "not off; nor local with a synchronous standby");
const STANDBYS: Need = Need::new("standbys", "none, or one that commits wait for");
const STORE: Need = Need::new("store", "made by `onlyonce store init`");
const TABLES_KEPT: Need = Need::new("tables", "logged");
const PRIVILEGES: Need = Need::new("privileges", "SELECT, INSERT, UPDATE, DELETE, EXECUTE");
const FUNCTION: Need = Need::new("function", "onlyonce._swap");
const SECRET: Need = Need::new("secret", "32 bytes");
const NOTICES: Need = Need::new("notices", "come, or others' answers are polled for");

/// All that is looked at.
const NEEDS: [Need; 14] = [
    SERVER,
    PRIMARY,
    READ_ONLY,
    FSYNC,
    FULL_PAGE_WRITES,
    SYNCHRONOUS_COMMIT,
    STANDBYS,
    STORE,
    TABLES_KEPT,
    PRIVILEGES,
    FORMAT,
    FUNCTION,
    SECRET,
    NOTICES,
];
/// What makes a store where there is none.
const INIT: &str = "`onlyonce store init` makes one";
/// What a role needs.
const GRANT: &str = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA onlyonce TO the \
                     role of this address";

/// What a session begins every transaction with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checked {
    /// The `synchronous_commit` that was found to be enough.
    pub(crate) synchronous_commit: String,
    pub(crate) secret: Secret,
    pub(crate) warnings: Vec<Warning>,
}

/// The last column counts the standbys that follow, of which everybody is told the process and the
/// name. A base backup and an archive of the log follow too, and nobody fails over to them; a
/// subscription does not take our place either.
const SETTINGS: &str = "
SELECT current_setting('fsync'), current_setting('full_page_writes'),
  current_setting('synchronous_commit'), current_setting('synchronous_standby_names'),
  current_setting('transaction_read_only'), pg_is_in_recovery(),
  to_regclass('onlyonce.store') IS NOT NULL,
  (SELECT count(*) FROM pg_stat_replication r
   WHERE r.application_name NOT IN ('pg_basebackup', 'pg_receivewal') AND NOT EXISTS (
     SELECT FROM pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical'))";

/// What a role lacks that was taken a right which all have at first.
const GRANT_EXECUTE: &str = "GRANT EXECUTE ON FUNCTION onlyonce._swap TO the role of this address";

/// Which tables are not kept after a crash, and what we may not do with them or the function.
const TABLES: &str = "
SELECT 'table', c.relname::text, c.relpersistence::text,
  has_table_privilege(c.oid, 'SELECT') AND (c.relname <> 'records' OR (
    has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'DELETE')))
  AND has_table_privilege(c.oid, 'UPDATE')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'onlyonce' AND c.relkind IN ('r', 'p')
UNION ALL
SELECT 'function', p.proname::text, 'p', has_function_privilege(p.oid, 'EXECUTE')
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = 'onlyonce' AND p.proname = '_swap'";

const ROW: &str = "SELECT version, secret FROM onlyonce.store";

/// Looks through a server and its tables.
pub(crate) async fn check(client: &Client, way: &Way) -> Result<Checked, OpenError> {
    let mut checks = Checks::at(&*way.place);
    let looked = look(client, way, &mut checks).await;
    checks.verdict()?;
    looked
}

/// Everything that is looked at when the store in the database is opened, each with what was
/// found. Nothing is changed.
pub async fn doctor(address: Address) -> Vec<Check> {
    let way = Way::to(address);
    let mut checks = Checks::at(&*way.place);
    let looking = async {
        let client = way.connect().await?;
        look(&client, &way, &mut checks).await?;
        // None of them keep a store from being used.
        match notice::check(&way).await {
            Ok(()) => checks.good(NOTICES, "come"),
            Err(why) => checks.good(NOTICES, format!("none: {why}")),
        }
        Ok(())
    };
    let late = |_| Err(OpenError::new(Unavailable, &*way.place, "it does not answer in time"));
    let looked = tokio::time::timeout(2 * CONNECT_MAX, looking).await.unwrap_or_else(late);
    if let Err(error) = looked {
        checks.failed(SERVER, &error);
    }
    checks.finish(&NEEDS)
}

/// Looks through it, and says why nothing more can be asked.
async fn look(client: &Client, way: &Way, checks: &mut Checks) -> Result<Checked, OpenError> {
    let (synchronous_commit, store) = stored(client, way, checks).await?;
    formats(&store).look(checks)?;
    // A copy of the tables alone has none.
    let found = ask(client, &way.place, "SELECT to_regproc('onlyonce._swap') IS NOT NULL").await?;
    if !found.first().is_some_and(|row| row.get(0)) {
        let why = "the function that the store writes by is gone";
        let fix = "`onlyonce store functions` makes it anew";
        return Err(checks.refuse(Refused, FUNCTION, "none", why, fix));
    }
    checks.good(FUNCTION, "there");
    let Ok(secret) = <[u8; 32]>::try_from(store.get::<_, &[u8]>(1)) else {
        return Err(checks.refuse(Foreign, SECRET, "something else", "its secret is none", ""));
    };
    checks.good(SECRET, "there");
    let warnings = checks.accepted().map(Warning::of).collect();
    Ok(Checked { synchronous_commit, secret: Secret::from_bytes(secret), warnings })
}

/// Looks at all that is the same in each format; what a transaction is begun with, and the row of
/// the store.
pub(crate) async fn stored(
    client: &Client,
    way: &Way,
    checks: &mut Checks,
) -> Result<(String, Row), OpenError> {
    let place = &*way.place;
    let settings = settings(client, way, checks).await?;
    if !settings.has_store {
        let why = "there is no store in this database";
        return Err(checks.refuse(Missing, STORE, "none", why, INIT));
    }
    checks.good(STORE, "there");
    tables(client, place, checks).await?;
    let row = ask(client, place, ROW).await?.into_iter().next();
    let gone = || checks.refuse(Missing, FORMAT, "none", "the store's row is gone", "");
    Ok((settings.synchronous_commit, row.ok_or_else(gone)?))
}

/// The formats that the row of a store speaks of.
pub(crate) fn formats(store: &Row) -> Formats {
    Formats { found: store.get::<_, i32>(0).into(), known: schema::VERSION.into() }
}

/// Whether the tables are kept, and ours to use.
async fn tables(client: &Client, place: &str, checks: &mut Checks) -> Result<(), OpenError> {
    let (mut kept, mut ours) = (true, Ok(()));
    for table in ask(client, place, TABLES).await? {
        let (kind, name): (&str, &str) = (table.get(0), table.get(1));
        let (persistence, may): (&str, bool) = (table.get(2), table.get(3));
        if persistence != "p" {
            let why = format!("table onlyonce.{name} is not kept after a crash");
            let fix = format!("ALTER TABLE onlyonce.{name} SET LOGGED");
            let says = format!("onlyonce.{name} is unlogged");
            checks.refuse(Refused, TABLES_KEPT, says, &why, &fix);
            kept = false;
        }
        if !may && ours.is_ok() {
            let why = format!("we may not use {kind} onlyonce.{name}");
            let says = format!("not of onlyonce.{name}");
            let fix = if kind == "table" { GRANT } else { GRANT_EXECUTE };
            ours = Err(checks.refuse(Refused, PRIVILEGES, says, &why, fix));
        }
    }
    if kept {
        checks.good(TABLES_KEPT, "logged");
    }
    // What is in them cannot be asked then.
    ours?;
    checks.good(PRIVILEGES, "ours");
    Ok(())
}

/// Makes the tables.
pub(crate) async fn init(
    client: &mut Client,
    way: &Way,
    secret: &[u8; 32],
    floor: Floor,
) -> Result<(), OpenError> {
    let place = &*way.place;
    let mut checks = Checks::at(place);
    let settings = settings(client, way, &mut checks).await?;
    checks.verdict()?;
    if settings.has_store {
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
        for step in schema::STEPS {
            making.batch_execute(step).await?;
        }
        make_functions(&making).await?;
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

/// Makes the functions in a store that there is already, and what transactions of callers need.
pub(crate) async fn install(client: &mut Client, way: &Way) -> Result<(), OpenError> {
    let mut checks = Checks::at(&*way.place);
    let looked = async {
        let (_, store) = stored(client, way, &mut checks).await?;
        formats(&store).look(&mut checks)
    };
    let looked = looked.await;
    checks.verdict()?;
    looked?;
    let refused = |error: Error| refusal(way, &error);
    let making = client.transaction().await.map_err(refused)?;
    // Two at once take turns.
    making.query_typed(schema::LOCK_STORE, &[]).await.map_err(refused)?;
    make_functions(&making).await.map_err(refused)?;
    making.commit().await.map_err(|error| lost(way, &error))
}

/// With a word of which program has made them.
pub(crate) async fn make_functions(making: &Transaction<'_>) -> Result<(), Error> {
    making.batch_execute(schema::NOTED).await?;
    making.batch_execute(schema::FUNCTIONS).await?;
    let mark = format::mark(schema::FUNCTIONS);
    making.batch_execute(&format!("COMMENT ON FUNCTION onlyonce.claim IS '{mark}'")).await
}

struct Settings {
    synchronous_commit: String,
    has_store: bool,
}

async fn settings(client: &Client, way: &Way, checks: &mut Checks) -> Result<Settings, OpenError> {
    let rows = ask(client, &way.place, SETTINGS).await?;
    let Some(found) = rows.first() else {
        return Err(OpenError::new(Unavailable, &*way.place, "it does not tell its settings"));
    };
    checks.good(SERVER, "yes");
    let setting = |at: usize| found.get::<_, String>(at);
    let standby: bool = found.get(5);
    let why = "it is a standby (in recovery)";
    checks.must(PRIMARY, if standby { "no" } else { "yes" }, !standby, why, "name the primary");
    // A standby is read-only whatever that setting is.
    if !standby {
        let fix = "default_transaction_read_only must be off for our role";
        checks.must(READ_ONLY, setting(4), setting(4) == "off", "it is read-only", fix);
    }
    for (at, need) in [FSYNC, FULL_PAGE_WRITES].into_iter().enumerate() {
        let (name, said) = (need.name, setting(at));
        let why = format!("{name} is {said}: a crash would lose or tear what was confirmed");
        let fix = format!("`ALTER SYSTEM SET {name} = on`, then `SELECT pg_reload_conf()`");
        checks.must(need, &*said, said == "on", &why, &fix);
    }
    let (commit, standbys) = (setting(2), setting(3));
    let why = match commit.as_str() {
        "off" => Some("off for our role: a crash would lose what was confirmed".to_owned()),
        "local" if !standbys.is_empty() => Some(format!(
            "local for our role, though synchronous_standby_names is {standbys:?}: a failover \
             would lose what was confirmed"
        )),
        _ => None,
    };
    let text = format!("synchronous_commit is {}", why.as_deref().unwrap_or_default());
    let fix = "it must be on: `ALTER ROLE .. SET synchronous_commit = on`, or for the database or \
               the server";
    checks.must(SYNCHRONOUS_COMMIT, &*commit, why.is_none(), &text, fix);
    if !standby {
        let is_waited_for = !standbys.is_empty();
        look_at_standbys(found.get(7), is_waited_for, way.address.takes_asynchronous(), checks);
    }
    Ok(Settings { synchronous_commit: commit, has_store: found.get(6) })
}

/// A standby that takes the primary's place lacks what it had not got, unless commits wait for one.
fn look_at_standbys(count: i64, is_waited_for: bool, takes_risk: bool, checks: &mut Checks) {
    let says = match (count, is_waited_for) {
        (_, true) => "commits wait for one".to_owned(),
        (0, false) => "none".to_owned(),
        (_, false) => format!("{count}, and no commit waits for one"),
    };
    let why = "a standby follows and synchronous_standby_names is empty: a failover would lose \
               what was confirmed last, and that would run again";
    let fix = "name it in synchronous_standby_names (`ALTER SYSTEM SET ..`, then `SELECT \
               pg_reload_conf()`), or, if it never takes this server's place, say so by \
               `accept=asynchronous`";
    if 0 < count && !is_waited_for && takes_risk {
        let why = format!("{why} (`accept=asynchronous`)");
        checks.take(
            "asynchronous",
            STANDBYS,
            says,
            &why,
            "run `onlyonce store restored` after one",
        );
    } else {
        checks.must(STANDBYS, says, count == 0 || is_waited_for, why, fix);
    }
}

async fn ask(client: &Client, place: &str, sql: &str) -> Result<Vec<Row>, OpenError> {
    let asked = client.query_typed(sql, &[]).await;
    asked.map_err(|error| OpenError::new(Unavailable, place, text(&error)))
}
