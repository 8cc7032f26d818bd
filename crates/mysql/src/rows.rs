//! What the writing of rows stands on beside the format: that the statement of many rows may be
//! said, that there is a row for each revision that is noted, and that the connection counts only
//! rows that were changed.

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use onlyonce_store::OpenErrorKind::{Refused, Unavailable};
use onlyonce_store::{Checks, Need, OpenError};

use crate::door::ask;
use crate::error::{code, text};
use crate::many;
use crate::schema;
use crate::session::value;

pub(crate) const ROWS: Need = Need::new("rows", "written and counted as they must be");

const SLOTS: &str = "SELECT COUNT(*) FROM onlyonce_revisions WHERE slot BETWEEN 0 AND 63";
const _: () = assert!(schema::SLOTS == 64);

/// Looks at what a table must be like.
pub(crate) async fn look(
    conn: &mut Conn,
    place: &str,
    checks: &mut Checks,
) -> Result<(), OpenError> {
    if let Err(error) = conn.query_drop(many::explained()).await {
        if code(&error).is_none() {
            return Err(OpenError::new(Unavailable, place, text(&error)));
        }
        let why = format!("rows cannot be written together: {}", text(&error));
        return Err(checks.refuse(Refused, ROWS, "not written", &why, "mend the table"));
    }
    let slots = ask(conn, place, SLOTS).await?;
    if slots.first().and_then(|row| value::<u8>(row, 0)) != Some(schema::SLOTS) {
        let why = "rows of onlyonce_revisions are missing, where revisions are noted";
        let fix = "`onlyonce store migrate` makes them again";
        return Err(checks.refuse(Refused, ROWS, "some are missing", why, fix));
    }
    Ok(())
}

/// Looks how the connection counts, by the row of this slot, which it may have to wait for: so only
/// one that writes is looked at.
pub(crate) async fn counted(
    conn: &mut Conn,
    place: &str,
    slot: u8,
    checks: &mut Checks,
) -> Result<(), OpenError> {
    let same = format!("UPDATE onlyonce_revisions SET syncs = syncs WHERE slot = {slot}");
    let same = conn.query_drop(same).await;
    same.map_err(|error| OpenError::new(Unavailable, place, text(&error)))?;
    if conn.affected_rows() != 0 {
        let why = "a row that is left as it is counts as changed: two could be told the same swap";
        let fix = "let the proxy in between not set CLIENT_FOUND_ROWS";
        return Err(checks.refuse(Refused, ROWS, "counted as found", why, fix));
    }
    checks.good(ROWS, "so");
    Ok(())
}

#[cfg(test)]
mod tests {
    use mysql_async::{Opts, OptsBuilder};
    use onlyonce_core::Floor;
    use onlyonce_testbed::MariaDb as Server;

    use super::*;
    use crate::mysql::Mysql;

    /// What a proxy between us and the server may set.
    #[test]
    fn a_connection_that_counts_rows_which_stay_is_refused() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        runtime.unwrap().block_on(refused());
    }

    async fn refused() {
        let server = Server::start();
        server.sql("mysql", "CREATE DATABASE shop");
        let url = server.url("shop");
        Mysql::init(url.parse().unwrap(), Floor::NONE).await.unwrap();
        for counts in [false, true] {
            let opts = OptsBuilder::from_opts(Opts::from_url(&url).unwrap());
            let mut conn = Conn::new(opts.client_found_rows(counts)).await.unwrap();
            let mut checks = Checks::at("db");
            look(&mut conn, "db", &mut checks).await.unwrap();
            let looked = counted(&mut conn, "db", 0, &mut checks).await;
            assert_eq!(looked.is_err(), counts);
        }
    }
}
