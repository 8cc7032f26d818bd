//! Transactions of callers' that are open: whoever has used a table keeps others from locking it.
//! One that was prepared (`XA PREPARE`) does so in InnoDB alone, also when its session is over.

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use onlyonce_store::OpenErrorKind::Unavailable;
use onlyonce_store::{OpenError, OpenTransactions};

use crate::address::Address;
use crate::error::{DENIED, LOCKED, code, text};
use crate::mysql::Mysql;
use crate::session::Way;

/// It waits for a second, in which it holds up all others.
/// Without autocommit it asks InnoDB too, which has the locks of what was prepared.
const LOCK: &str = "SET SESSION lock_wait_timeout = 1, innodb_lock_wait_timeout = 1, \
                    innodb_table_locks = ON, autocommit = 0; LOCK TABLES onlyonce_records WRITE";
/// The user may not use the database so.
const NOT_HERE: u16 = 1044;
/// What would show it.
const GRANT: &str = "GRANT LOCK TABLES ON the database TO the user of this address";

impl Mysql {
    /// Whether a transaction that has used the store's records is open. Needs `LOCK TABLES`.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn open_transactions(address: Address) -> Result<OpenTransactions, OpenError> {
        let way = Way::to(address);
        let mut conn = way.connect().await?;
        let seen = look(&mut conn, &way).await;
        // What was locked is free with it.
        let _ = conn.disconnect().await;
        seen
    }
}

async fn look(conn: &mut Conn, way: &Way) -> Result<OpenTransactions, OpenError> {
    let Err(error) = conn.query_drop(LOCK).await else { return Ok(OpenTransactions::None) };
    match code(&error) {
        Some(LOCKED) => {
            let which = "SELECT trx_started FROM information_schema.INNODB_TRX shows which, and \
                         XA RECOVER what was prepared";
            Ok(OpenTransactions::Some(which.to_owned()))
        }
        Some(code) if code == NOT_HERE || DENIED.contains(&code) => {
            Ok(OpenTransactions::Unseen(GRANT.to_owned()))
        }
        Some(_) | None => Err(OpenError::new(Unavailable, &*way.place, text(&error))),
    }
}
