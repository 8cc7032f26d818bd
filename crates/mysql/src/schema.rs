//! The tables, and the statements about them.
//!
//! Values stand in the text as numbers and as hexadecimal literals, so nothing that somebody else
//! has written can be read as a statement, whatever a server or a proxy does to the session.

use onlyonce_core::KeyId;
use onlyonce_store::Row;

/// The format of the tables: how many of [`STEPS`] were taken. A program refuses a database with
/// another one. The procedures name it too.
pub(crate) const VERSION: i64 = 2;
const _: () = assert!(STEPS.len() == VERSION as usize);

/// The steps that make the tables. A new store takes all of them, and an older one those above its
/// format. Once it was released no step is changed: what is to be otherwise is a step more. The
/// server commits each statement that changes a table by itself, so whoever was cut off repeats
/// some: each must be one that can be (`IF NOT EXISTS`), also with none but the tables there. The
/// first makes new tables as the last would have them, so that making a store needs no right to
/// alter one; to older tables it does nothing.
pub(crate) const STEPS: [&[&str]; 2] = [&TABLES, &EXPECTED];

/// Rows in which processes note their largest revision. One for all would be locked by one
/// transaction until it is synced, and make all others wait.
pub(crate) const SLOTS: u8 = 64;

/// Makes those of the rows that are not there.
pub(crate) fn make_slots() -> String {
    let slots: Vec<String> = (0..SLOTS).map(|slot| format!("({slot}, 0, 0)")).collect();
    let slots = slots.join(",");
    format!("INSERT IGNORE INTO onlyonce_revisions (slot, revision, syncs) VALUES {slots}")
}

/// The first step. A server commits each of these statements by itself, so a store is there when
/// its row is; what an init that was cut short has left is used by the next.
///
/// `onlyonce_due` serves the sweeper and listings of one state. Ids are bytes, and are compared as
/// bytes: a collation would take some of them for equal.
const TABLES: [&str; 3] = [
    "CREATE TABLE IF NOT EXISTS onlyonce_records (
  id binary(16) NOT NULL PRIMARY KEY,
  revision bigint NOT NULL,
  state tinyint NOT NULL,
  due_at bigint NOT NULL,
  record longblob NOT NULL,
  expected bigint NULL,
  KEY onlyonce_due (state, due_at, id)
) ENGINE=InnoDB CHARACTER SET binary ROW_FORMAT=DYNAMIC",
    "CREATE TABLE IF NOT EXISTS onlyonce_revisions (
  slot tinyint NOT NULL PRIMARY KEY,
  revision bigint NOT NULL,
  syncs bigint NOT NULL
) ENGINE=InnoDB CHARACTER SET binary",
    "CREATE TABLE IF NOT EXISTS onlyonce_store (
  only_row tinyint NOT NULL PRIMARY KEY,
  version int NOT NULL,
  secret binary(32) NOT NULL,
  floor bigint NOT NULL
) ENGINE=InnoDB CHARACTER SET binary",
];

/// The second step. In this column a statement of many rows is told which revision it is to find in
/// each; nothing is kept in it. Not every server knows `ADD COLUMN IF NOT EXISTS`.
const EXPECTED: [&str; 4] = [
    "SET @onlyonce_step = IF(EXISTS (SELECT 1 FROM information_schema.COLUMNS
  WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'onlyonce_records'
  AND COLUMN_NAME = 'expected'),
  'DO 0', 'ALTER TABLE onlyonce_records ADD COLUMN expected bigint NULL')",
    "PREPARE onlyonce_step FROM @onlyonce_step",
    "EXECUTE onlyonce_step",
    "DEALLOCATE PREPARE onlyonce_step",
];

/// Their names and their engines, or what kind of table else it is (one that keeps older rows too
/// counts them).
pub(crate) const ENGINES: &str = "SELECT TABLE_NAME,
IF(TABLE_TYPE = 'BASE TABLE', ENGINE, TABLE_TYPE) FROM information_schema.TABLES
WHERE TABLE_SCHEMA = DATABASE()
AND TABLE_NAME IN ('onlyonce_records', 'onlyonce_revisions', 'onlyonce_store')";

/// What we must be allowed to do, as statements that do nothing.
pub(crate) const RIGHTS: [&str; 8] = [
    "EXPLAIN SELECT floor FROM onlyonce_store",
    "EXPLAIN UPDATE onlyonce_store SET floor = 0 WHERE only_row = 0",
    "EXPLAIN SELECT revision FROM onlyonce_revisions",
    "EXPLAIN UPDATE onlyonce_revisions SET revision = 0 WHERE slot = -1",
    "EXPLAIN SELECT record FROM onlyonce_records WHERE id = x'00'",
    "EXPLAIN INSERT INTO onlyonce_records (id, revision, state, due_at, record)
VALUES (x'00', 0, 0, 0, x'')",
    "EXPLAIN UPDATE onlyonce_records SET record = x'' WHERE id = x'00'",
    "EXPLAIN DELETE FROM onlyonce_records WHERE id = x'00'",
];

pub(crate) const STORE: &str = "SELECT version, secret FROM onlyonce_store";
pub(crate) const ANY_RECORD: &str = "SELECT 1 FROM onlyonce_records LIMIT 1";
/// The server's clock in milliseconds, at the moment of the question; of no time zone.
pub(crate) const CLOCK: &str = "SELECT CAST(UNIX_TIMESTAMP(SYSDATE(3)) * 1000 AS SIGNED)";
pub(crate) const FLOOR: &str = "SELECT floor FROM onlyonce_store";
pub(crate) const REVISION_MAX: &str = "SELECT MAX(revision) FROM onlyonce_revisions";

/// What must be so in a transaction of a caller's: the store's row, whether it has one of these
/// records, the time, whether there is no transaction, whether the server loses what it has
/// confirmed, whether it has a binary log. By the time zone of the caller's session an hour of each
/// year is told twice.
pub(crate) fn tx_store(mark: &KeyId, names: &KeyId) -> String {
    let (mark, names) = (hex(mark.as_bytes()), hex(names.as_bytes()));
    format!(
        "SET STATEMENT time_zone = '+00:00' FOR SELECT s.version, s.secret, s.floor,
  EXISTS (SELECT 1 FROM onlyonce_records r WHERE r.id = {mark}),
  EXISTS (SELECT 1 FROM onlyonce_records r WHERE r.id = {names}),
  CAST(UNIX_TIMESTAMP(SYSDATE(3)) * 1000 AS SIGNED), NOT @@session.in_transaction,
  @@global.innodb_flush_log_at_trx_commit NOT IN (1, 3)
    OR (@@global.log_bin AND @@global.sync_binlog <> 1),
  @@global.log_bin FROM onlyonce_store s"
    )
}

/// Why it is refused then.
pub(crate) const TX_LOSES: &str = "innodb_flush_log_at_trx_commit must be 1 or 3, and sync_binlog \
                                   1 where log_bin is on";
/// Whether the transaction goes on.
pub(crate) const TX_INSIDE: &str = "SELECT @@session.in_transaction";
/// The floor as it is, whatever the snapshot of the transaction; it stays until the end of that.
pub(crate) const TX_FLOOR: &str = "SELECT floor FROM onlyonce_store LOCK IN SHARE MODE";
/// A row for the largest revision that no other transaction has locked, of those of callers.
pub(crate) const TX_SLOT: &str = "SELECT slot FROM onlyonce_revisions WHERE slot < 0 LIMIT 1 \
                                  FOR UPDATE SKIP LOCKED";

/// Notes it there.
pub(crate) fn tx_note(slot: i64, revision: i64) -> String {
    format!(
        "UPDATE onlyonce_revisions SET revision = GREATEST(revision, {revision}), \
         syncs = syncs + 1 WHERE slot = {slot}"
    )
}

/// Makes a row where there is none, waiting for whoever is about to.
pub(crate) fn tx_make(id: &KeyId, row: &Row) -> String {
    let (id, bytes) = (hex(id.as_bytes()), hex(&row.bytes));
    let Row { revision, state, due_at, .. } = row;
    format!(
        "INSERT INTO onlyonce_records (id, revision, state, due_at, record) \
         VALUES ({id}, {revision}, {state}, {due_at}, {bytes}) ON DUPLICATE KEY UPDATE id = id"
    )
}

/// Changes the row of this revision.
pub(crate) fn tx_change(id: &KeyId, row: &Row, expected: i64) -> String {
    let (id, bytes) = (hex(id.as_bytes()), hex(&row.bytes));
    let Row { revision, state, due_at, .. } = row;
    format!(
        "UPDATE onlyonce_records SET revision = {revision}, state = {state}, due_at = {due_at}, \
         record = {bytes} WHERE id = {id} AND revision = {expected}"
    )
}

/// Takes back what this transaction has made.
pub(crate) fn tx_unmake(id: &KeyId) -> String {
    format!("DELETE FROM onlyonce_records WHERE id = {}", hex(id.as_bytes()))
}

/// Bytes as a literal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(3 + 2 * bytes.len());
    text.push_str("x'");
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text.push('\'');
    text
}

/// Ids as a list.
pub(crate) fn ids<'a>(ids: impl Iterator<Item = &'a KeyId>) -> String {
    let list: Vec<String> = ids.map(|id| hex(id.as_bytes())).collect();
    list.join(",")
}

/// Ids of one list, at most: a server may read a longer one as a table, and not by the key.
pub(crate) const IDS: usize = 512;

/// The records of these keys, at most [`IDS`].
pub(crate) fn records(keys: &[KeyId]) -> String {
    let keys = ids(keys.iter());
    format!("SELECT id, revision, record FROM onlyonce_records WHERE id IN ({keys})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_of_a_value_can_end_its_literal() {
        let all: Vec<u8> = (0..=u8::MAX).collect();
        let text = hex(&all);
        assert_eq!(text.len(), 2 + 512 + 1);
        assert!(text[2..514].bytes().all(|digit| digit.is_ascii_hexdigit()));
        assert_eq!(hex(b"'\\\0"), "x'275c00'");
    }
}
