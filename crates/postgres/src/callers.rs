//! Transactions of callers' that are open: what they hold of the store's tables tells of them.

use onlyonce_store::OpenErrorKind::Unavailable;
use onlyonce_store::{OpenError, OpenTransactions};

use crate::address::Address;
use crate::error::text;
use crate::postgres::Postgres;
use crate::session::Way;

/// Whoever has read or written a table holds a lock on it until the end of the transaction, and
/// everybody is told of all locks. A vacuum, and what makes an index, takes others.
const HOLDERS: &str = "
SELECT DISTINCT CASE WHEN l.pid IS NULL THEN 'a prepared transaction' ELSE
  concat('process ', l.pid, ' of ', a.usename, ' (', a.application_name, ')') END
FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
  AND c.relnamespace = to_regnamespace('onlyonce') AND c.relkind = 'r'
  AND l.mode IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')
  AND l.pid IS DISTINCT FROM pg_backend_pid()
ORDER BY 1";

impl Postgres {
    /// The transactions that have used the store's tables and are open, prepared ones too. Needs no
    /// right.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn open_transactions(address: Address) -> Result<OpenTransactions, OpenError> {
        let way = Way::to(address);
        let client = way.connect().await?;
        let told = client.query_typed(HOLDERS, &[]).await;
        let told = told.map_err(|error| OpenError::new(Unavailable, &*way.place, text(&error)))?;
        if told.is_empty() {
            return Ok(OpenTransactions::None);
        }
        let names: Vec<String> = told.iter().map(|row| row.get(0)).collect();
        Ok(OpenTransactions::Some(names.join(", ")))
    }
}
