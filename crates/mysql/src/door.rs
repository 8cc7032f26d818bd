//! Making a store, and what is looked at before a connection is used: the settings without which a
//! server does not keep what it has confirmed, and whose tables it has.

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Row};
use onlyonce_core::{Floor, Secret};
use onlyonce_store::OpenErrorKind::{Exists, Foreign, Missing, Refused, Unavailable};
use onlyonce_store::{Check, Checks, FORMAT, Formats, Need, OpenError, Warning, row};

use crate::address::{Accepts, Address, CONNECT_MAX};
use crate::error::{DENIED, DUPLICATE, NOT_TOLD, code, text};
use crate::procedures;
use crate::rows;
use crate::schema::{self, hex};
use crate::session::{Way, value};
use crate::settings::{self, Settings};

const SERVER: Need = Need::new("server", "answers");
const REPLICA: Need = Need::new("replica", "of no other server");
const FOLLOWED: Need = Need::new("replicas", "none, or one that commits wait for");
const STORE: Need = Need::new("store", "made by `onlyonce store init`");
const ENGINE: Need = Need::new("engine", "InnoDB");
const PRIVILEGES: Need = Need::new("privileges", "SELECT, INSERT, UPDATE, DELETE");
const SECRET: Need = Need::new("secret", "32 bytes");

/// All that is looked at.
const NEEDS: [Need; 19] = [
    SERVER,
    settings::VERSION,
    settings::READ_ONLY,
    settings::FLUSH,
    settings::METHOD,
    settings::DOUBLEWRITE,
    settings::SYNC_BINLOG,
    settings::BINLOG_FORMAT,
    settings::PACKET,
    settings::SQL_MODE,
    settings::GALERA,
    REPLICA,
    FOLLOWED,
    STORE,
    ENGINE,
    PRIVILEGES,
    FORMAT,
    rows::ROWS,
    SECRET,
];
/// What makes a store where there is none.
const INIT: &str = "`onlyonce store init` makes one";
/// Who follows, and whether a commit waits for one now.
const FOLLOWERS: &str = "SHOW GLOBAL STATUS WHERE Variable_name IN
  ('Slaves_connected', 'Rpl_semi_sync_master_status')";
/// What a user needs.
const GRANT: &str = "GRANT SELECT, INSERT, UPDATE, DELETE ON DATABASE.onlyonce_records, and the \
                     same on onlyonce_revisions and onlyonce_store, TO the user of this address";

/// What was found of a store that may be opened.
pub(crate) struct Checked {
    pub(crate) secret: Secret,
    /// What the server takes at once, in bytes.
    pub(crate) packet: u64,
    /// Whether what is seen may not be synced yet.
    pub(crate) syncs: bool,
    /// The risks that are taken.
    pub(crate) warnings: Vec<Warning>,
}

/// Looks through a server and its tables.
pub(crate) async fn check(
    conn: &mut Conn,
    place: &str,
    accepts: Accepts,
) -> Result<Checked, OpenError> {
    let mut checks = Checks::at(place);
    let looked = look(conn, place, accepts, &mut checks).await;
    checks.verdict()?;
    looked
}

/// Everything that is looked at when the store in the database is opened, each with what was
/// found. Nothing is changed.
pub async fn doctor(address: Address) -> Vec<Check> {
    let way = Way::to(address);
    let mut checks = Checks::at(&*way.place);
    let looking = async {
        let mut conn = way.connect().await?;
        let mut looked = look(&mut conn, &way.place, way.address.accepts(), &mut checks).await;
        if looked.is_ok() {
            let counted = rows::counted(&mut conn, &way.place, 0, &mut checks).await;
            looked = counted.and(looked);
        }
        // Without this word the server would log that a connection was lost.
        let _ = conn.disconnect().await;
        looked.map(drop)
    };
    let late = |_| Err(OpenError::new(Unavailable, &*way.place, "it does not answer in time"));
    let looked = tokio::time::timeout(2 * CONNECT_MAX, looking).await.unwrap_or_else(late);
    if let Err(error) = looked {
        checks.failed(SERVER, &error);
    }
    checks.finish(&NEEDS)
}

/// Looks through it, and says why nothing more can be asked.
async fn look(
    conn: &mut Conn,
    place: &str,
    accepts: Accepts,
    checks: &mut Checks,
) -> Result<Checked, OpenError> {
    let (settings, store) = stored(conn, place, accepts, checks).await?;
    formats(&store).look(checks)?;
    rows::look(conn, place, checks).await?;
    let secret = value::<Vec<u8>>(&store, 1).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let Some(secret) = secret else {
        return Err(checks.refuse(Foreign, SECRET, "something else", "its secret is none", ""));
    };
    checks.good(SECRET, "there");
    let (packet, syncs) = (settings.packet(), settings.shows_unsynced());
    let warnings = checks.accepted().map(Warning::of).collect();
    Ok(Checked { secret: Secret::from_bytes(secret), packet, syncs, warnings })
}

/// Looks at all that is the same in each format; the server's settings, and the row of the store.
pub(crate) async fn stored(
    conn: &mut Conn,
    place: &str,
    accepts: Accepts,
    checks: &mut Checks,
) -> Result<(Settings, Row), OpenError> {
    let settings = server(conn, place, accepts, checks).await?;
    let tables = ask(conn, place, schema::ENGINES).await?;
    let engines: Vec<(String, String)> = tables.iter().filter_map(pair).collect();
    if !engines.iter().any(|(table, _)| table == "onlyonce_store") {
        let why = "there is no store in this database, or none that this user may see";
        return Err(checks.refuse(Missing, STORE, "none", why, INIT));
    }
    engine(&engines, checks);
    privileges(conn, place, checks).await?;
    let Some(store) = ask(conn, place, schema::STORE).await?.into_iter().next() else {
        let why = "the store's row is missing";
        return Err(checks.refuse(Missing, STORE, "no row", why, INIT));
    };
    checks.good(STORE, "there");
    Ok((settings, store))
}

/// The formats that the row of a store speaks of.
pub(crate) fn formats(store: &Row) -> Formats {
    Formats { found: value(store, 0).unwrap_or_default(), known: schema::VERSION }
}

/// Looks at the server itself.
async fn server(
    conn: &mut Conn,
    place: &str,
    accepts: Accepts,
    checks: &mut Checks,
) -> Result<Settings, OpenError> {
    let told = ask(conn, place, &Settings::question()).await?;
    checks.good(SERVER, "yes");
    let settings = Settings::new(told.iter().filter_map(pair));
    settings.look(accepts, checks);
    replica(conn, place, accepts, checks).await?;
    followed(conn, place, &settings, accepts, checks).await?;
    Ok(settings)
}

/// Whether it follows another server, as far as that is told.
async fn replica(
    conn: &mut Conn,
    place: &str,
    accepts: Accepts,
    checks: &mut Checks,
) -> Result<(), OpenError> {
    // MariaDB tells everybody; of it, and of MySQL, whoever has the right is told more.
    let counted = ask(conn, place, "SHOW GLOBAL STATUS LIKE 'Slaves_running'").await?;
    let running = counted.first().and_then(|row| value::<u64>(row, 1));
    let follows = match conn.query::<Row, _>("SHOW REPLICA STATUS").await {
        Ok(rows) => Some(rows.iter().any(is_following)),
        Err(error) if code(&error) == Some(NOT_TOLD) => None,
        Err(error) => return Err(OpenError::new(Unavailable, place, text(&error))),
    };
    let follows = match (running, follows) {
        (None, None) => return Ok(()),
        (running, follows) => running.is_some_and(|count| 0 < count) || follows == Some(true),
    };
    let says = if follows { "yes" } else { "no" };
    let why = "it follows another server: what is confirmed by either is not known to the other";
    if follows && accepts.replica {
        let why = format!("{why} (`accept=replica`)");
        checks.take("replica", REPLICA, says, &why, "let nobody write to the other");
    } else {
        let fix = "name the server that it follows, or, if nobody writes to that, say so by \
                   `accept=replica`";
        checks.must(REPLICA, says, !follows, why, fix);
    }
    Ok(())
}

/// Whether replicas follow it that lack what they had not got when they take its place. MySQL does
/// not tell it.
async fn followed(
    conn: &mut Conn,
    place: &str,
    settings: &Settings,
    accepts: Accepts,
    checks: &mut Checks,
) -> Result<(), OpenError> {
    let told = ask(conn, place, FOLLOWERS).await?;
    let told: Vec<(String, String)> = told.iter().filter_map(pair).collect();
    let get = |name: &str| told.iter().find(|(told, _)| told == name).map(|(_, value)| &**value);
    let Some(count) = get("Slaves_connected") else { return Ok(()) };
    // It is set, and yet off once a commit has waited for too long.
    let is_off = get("Rpl_semi_sync_master_status") != Some("ON");
    let waits = match settings.waits_for_replica() {
        Ok(()) if is_off => Err("Rpl_semi_sync_master_status is OFF, since none has answered"),
        waits => waits,
    };
    let says = match (count, waits) {
        ("0", _) => "none".to_owned(),
        (_, Ok(())) => format!("{count}, and commits wait for one"),
        (_, Err(_)) => format!("{count}, and commits do not wait for one"),
    };
    let why = "a replica follows it, and not every commit waits for one: a failover would lose \
               what was confirmed last, and that would run again";
    let fix = format!(
        "let commits wait ({}), or, if no replica ever takes this server's place, say so by \
         `accept=asynchronous`",
        waits.err().unwrap_or_default()
    );
    if count != "0" && waits.is_err() && accepts.asynchronous {
        let why = format!("{why} (`accept=asynchronous`)");
        let fix = "run `onlyonce store restored` after one";
        checks.take("asynchronous", FOLLOWED, says, &why, fix);
    } else {
        checks.must(FOLLOWED, says, count == "0" || waits.is_ok(), why, &fix);
    }
    Ok(())
}

/// Whether a row of the status of a replica tells of one that is at work.
fn is_following(row: &Row) -> bool {
    let threads =
        ["Slave_IO_Running", "Slave_SQL_Running", "Replica_IO_Running", "Replica_SQL_Running"];
    threads.into_iter().any(|name| {
        let told = row.get_opt::<Option<String>, &str>(name);
        told.and_then(Result::ok).flatten().is_some_and(|it| it != "No")
    })
}

/// Whether a transaction holds for all tables.
fn engine(engines: &[(String, String)], checks: &mut Checks) {
    let mut good = true;
    for (table, engine) in engines.iter().filter(|(_, engine)| engine != "InnoDB") {
        let why = format!("table {table} is kept by {engine}, and must be a plain one of InnoDB");
        let fix = match &**engine {
            "SYSTEM VERSIONED" => format!("ALTER TABLE {table} DROP SYSTEM VERSIONING"),
            _ => format!("ALTER TABLE {table} ENGINE=InnoDB"),
        };
        checks.refuse(Refused, ENGINE, format!("{engine} of {table}"), &why, &fix);
        good = false;
    }
    if good {
        checks.good(ENGINE, "InnoDB");
    }
}

/// Whether we may do what we must.
async fn privileges(conn: &mut Conn, place: &str, checks: &mut Checks) -> Result<(), OpenError> {
    for right in schema::RIGHTS {
        let Err(error) = conn.query::<Row, _>(right).await else { continue };
        if code(&error).is_some_and(|code| DENIED.contains(&code)) {
            let why = format!("we may not do what we must: {}", text(&error));
            return Err(checks.refuse(Refused, PRIVILEGES, "not enough", &why, GRANT));
        }
        return Err(OpenError::new(Unavailable, place, text(&error)));
    }
    checks.good(PRIVILEGES, "ours");
    Ok(())
}

/// Makes the tables, and last the row without which they are no store.
pub(crate) async fn init(
    conn: &mut Conn,
    place: &str,
    accepts: Accepts,
    secret: &[u8; 32],
    floor: Floor,
) -> Result<(), OpenError> {
    let mut checks = Checks::at(place);
    server(conn, place, accepts, &mut checks).await?;
    checks.verdict()?;
    let exists = || OpenError::new(Exists, place, "there is a store already; it is left as it is");
    // Before any step, which would change the tables of an older one.
    let there: Vec<(String, String)> =
        ask(conn, place, schema::ENGINES).await?.iter().filter_map(pair).collect();
    let has_store = there.iter().any(|(table, _)| table == "onlyonce_store");
    if has_store && !ask(conn, place, schema::STORE).await?.is_empty() {
        return Err(exists());
    }
    for statement in schema::STEPS.into_iter().flatten() {
        say(conn, place, statement).await?;
    }
    if !ask(conn, place, schema::STORE).await?.is_empty() {
        return Err(exists());
    }
    if !ask(conn, place, schema::ANY_RECORD).await?.is_empty() {
        let text = "there are records, and no store that they belong to; they are left as they are";
        return Err(OpenError::new(Foreign, place, text));
    }
    let engines = ask(conn, place, schema::ENGINES).await?;
    engine(&engines.iter().filter_map(pair).collect::<Vec<_>>(), &mut checks);
    checks.verdict()?;
    procedures::offer(conn, place).await?;
    let (secret, floor) = (hex(secret), row::millis(floor.time()));
    let made = conn.query_drop(format!(
        "START TRANSACTION READ WRITE;
         {};
         INSERT INTO onlyonce_store (only_row, version, secret, floor)
         VALUES (1, {}, {secret}, {floor});
         COMMIT",
        schema::make_slots(),
        schema::VERSION
    ));
    match made.await {
        // Somebody else was faster.
        Err(error) if code(&error) == Some(DUPLICATE) => Err(exists()),
        made => made.map_err(|error| OpenError::new(Unavailable, place, text(&error))),
    }
}

/// The first two columns.
fn pair(row: &Row) -> Option<(String, String)> {
    Some((value(row, 0)?, value(row, 1)?))
}

pub(crate) async fn ask(conn: &mut Conn, place: &str, sql: &str) -> Result<Vec<Row>, OpenError> {
    let asked = conn.query(sql).await;
    asked.map_err(|error| OpenError::new(Unavailable, place, text(&error)))
}

async fn say(conn: &mut Conn, place: &str, sql: &str) -> Result<(), OpenError> {
    let said = conn.query_drop(sql).await;
    said.map_err(|error| OpenError::new(Unavailable, place, text(&error)))
}
