//! The procedures by which a program of any language claims in its own transaction.

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use onlyonce_store::OpenErrorKind::{Refused, Unavailable};
use onlyonce_store::{OpenError, format};

use crate::door::{self, ask};
use crate::error::{code, text};
use crate::session::{Way, value};

/// Their text, made anew over older ones.
const TEXT: &str = concat!(
    include_str!("functions/record.sql"),
    include_str!("functions/decide.sql"),
    include_str!("functions/calls.sql"),
);
/// The type of a record, for which this stands in the text.
const RECORD: (&str, &str) = ("onlyonce__record", include_str!("functions/row.sql"));
/// Whose rights they have that are called from outside; there it is written who has made them.
const DEFINER: &str = "SQL SECURITY DEFINER";
/// How a procedure ends: on a line of its own, which no other statement does.
const END: &str = "\nEND;\n";

/// Rows in which transactions of callers note their largest revision, until their end: one for
/// each that is open at once, so that they do not wait for each other. From this number to zero.
const SLOTS: i16 = -128;

/// The user may not make routines, or not in this database.
const DENIED: [u16; 4] = [1044, 1142, 1227, 1370];
/// What it needs.
const GRANT: &str = "GRANT CREATE ROUTINE, ALTER ROUTINE ON the database, and INSERT ON its \
                     onlyonce_revisions, TO the user of this address";

/// Makes them, with what they need, in a store that there is already.
///
/// # Errors
/// The server has none of what they are made of, the user may not, or it does not answer.
pub(crate) async fn install(conn: &mut Conn, way: &Way) -> Result<(), OpenError> {
    let place = &*way.place;
    door::check(conn, place, way.address.accepts()).await?;
    if !is_able(conn, place).await? {
        let text = "the procedures are for MariaDB 10.10 or newer, and this server is none";
        return Err(OpenError::new(Refused, place, text));
    }
    make(conn).await.map_err(|error| {
        let denied = code(&error).is_some_and(|code| DENIED.contains(&code));
        let (kind, hint) = if denied { (Refused, GRANT) } else { (Unavailable, "") };
        OpenError::new(kind, place, format!("{}: {hint}", text(&error)))
    })
}

/// Makes them in a new store, if the server can have them and the user may make them: without them
/// it is a store all the same.
pub(crate) async fn offer(conn: &mut Conn, place: &str) -> Result<(), OpenError> {
    if !is_able(conn, place).await? {
        return Ok(());
    }
    match make(conn).await {
        Err(error) if code(&error).is_some_and(|code| DENIED.contains(&code)) => Ok(()),
        made => made.map_err(|error| OpenError::new(Unavailable, place, text(&error))),
    }
}

/// `CRC32C`, `SKIP LOCKED`, types of rows and `RANDOM_BYTES`: MariaDB has all of them since 10.10.
async fn is_able(conn: &mut Conn, place: &str) -> Result<bool, OpenError> {
    is_mariadb(conn, place, (10, 10)).await
}

/// Whether it is MariaDB of this version at least.
pub(crate) async fn is_mariadb(
    conn: &mut Conn,
    place: &str,
    least: (u32, u32),
) -> Result<bool, OpenError> {
    let told = ask(conn, place, "SELECT VERSION()").await?;
    let version: String = told.first().and_then(|row| value(row, 0)).unwrap_or_default();
    let mut parts = version.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or_default());
    let found = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    Ok(version.contains("MariaDB") && least <= found)
}

async fn make(conn: &mut Conn) -> Result<(), mysql_async::Error> {
    let slots: Vec<String> = (SLOTS..0).map(|slot| format!("({slot}, 0, 0)")).collect();
    let slots = slots.join(",");
    conn.query_drop(format!(
        "INSERT IGNORE INTO onlyonce_revisions (slot, revision, syncs) VALUES {slots}"
    ))
    .await?;
    for statement in statements() {
        conn.query_drop(statement).await?;
    }
    Ok(())
}

/// What tells them from those of another program.
fn mark() -> String {
    format::mark(&[TEXT, RECORD.1].concat())
}

/// Makes them anew in a store that there is, unless they are there and this program's, or the
/// server can have none; whether it has.
///
/// # Errors
/// As [`install`].
pub(crate) async fn renew(conn: &mut Conn, way: &Way) -> Result<bool, OpenError> {
    let ours = format!(
        "SELECT COUNT(*) FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = DATABASE() \
         AND ROUTINE_NAME IN ('onlyonce_claim', 'onlyonce_complete') AND ROUTINE_COMMENT = '{}'",
        mark()
    );
    let told = ask(conn, &way.place, &ours).await?;
    let has_both = told.first().and_then(|row| value::<u64>(row, 0)) == Some(2);
    if has_both || !is_able(conn, &way.place).await? {
        return Ok(false);
    }
    install(conn, way).await.map(|()| true)
}

/// Each of them. Comments between them may speak of the type that the others have.
fn statements() -> impl Iterator<Item = String> {
    let code: Vec<&str> = TEXT.lines().filter(|line| !line.starts_with("--")).collect();
    let code = format!("{}\n", code.join("\n")).replace(RECORD.0, RECORD.1.trim_end());
    let code = code.replace(DEFINER, &format!("{DEFINER} COMMENT '{}'", mark()));
    let one = |text: &str| format!("{}\nEND", text.trim());
    let all: Vec<String> =
        code.split(END).filter(|text| !text.trim().is_empty()).map(one).collect();
    all.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_procedure_is_one_statement() {
        let statements: Vec<String> = statements().collect();
        assert_eq!(statements.len(), TEXT.matches("CREATE OR REPLACE PROCEDURE").count());
        assert_eq!(statements.iter().filter(|it| it.contains(&mark())).count(), 2);
        for statement in statements {
            assert!(statement.starts_with("CREATE OR REPLACE PROCEDURE onlyonce_"), "{statement}");
            assert!(statement.contains("SQL SECURITY"), "{statement}");
        }
    }
}
