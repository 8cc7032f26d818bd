//! The tables, and the statements about them. All of them name the schema, since nothing can be
//! set for a session.

/// The format of the tables. A program refuses a database with a higher one.
pub(crate) const VERSION: i32 = 1;

/// Rows in which processes note their largest revision. One for all would be locked by one
/// transaction until it is synced, and make all others wait.
pub(crate) const SLOTS: i16 = 64;

/// Makes the tables.
///
/// `records_due` serves the sweeper and listings of one state. A key id carries no time, so rows
/// cannot be dropped by the partition; they are deleted one by one, in batches like all writes, and
/// a vacuum that begins early and does not pause gives the room to the rows that come.
pub(crate) const TABLES: &str = "
CREATE TABLE onlyonce.store (
  only_row boolean NOT NULL PRIMARY KEY CHECK (only_row),
  version integer NOT NULL,
  secret bytea NOT NULL,
  floor bigint NOT NULL
);
CREATE TABLE onlyonce.revisions (
  slot smallint NOT NULL PRIMARY KEY,
  revision bigint NOT NULL
) WITH (fillfactor = 10);
CREATE TABLE onlyonce.records (
  id bytea NOT NULL PRIMARY KEY,
  revision bigint NOT NULL,
  state smallint NOT NULL,
  due_at bigint NOT NULL,
  record bytea NOT NULL
) WITH (
  fillfactor = 80,
  autovacuum_vacuum_scale_factor = 0.02,
  autovacuum_vacuum_cost_delay = 0,
  toast.autovacuum_vacuum_scale_factor = 0.02,
  toast.autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX records_due ON onlyonce.records (state, due_at, id);
";

pub(crate) const MAKE_STORE: &str = "INSERT INTO onlyonce.store (only_row, version, secret, floor) \
                                     VALUES (true, $1, $2, $3)";
pub(crate) const MAKE_SLOTS: &str = "INSERT INTO onlyonce.revisions (slot, revision) \
                                     SELECT slot, 0 FROM generate_series(0, $1::int4) AS slot";

/// The server's clock in milliseconds, at the moment of the question and not of its transaction.
pub(crate) const CLOCK: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
pub(crate) const FLOOR: &str = "SELECT floor FROM onlyonce.store";
pub(crate) const REVISION_MAX: &str = "SELECT max(revision) FROM onlyonce.revisions";
pub(crate) const RAISE_FLOOR: &str =
    "UPDATE onlyonce.store SET floor = $1 WHERE floor < $1 RETURNING floor";

pub(crate) const GET: &str =
    "SELECT id, revision, record FROM onlyonce.records WHERE id = ANY ($1)";
pub(crate) const COUNT_STATE: &str = "SELECT count(*) FROM onlyonce.records WHERE state = $1";

/// Keys that time may have ended: in each of the states `$1` until the time of `$2`.
pub(crate) const DUE: &str = "
SELECT due.id FROM unnest($1::int2[], $2::int8[]) AS asked (state, until) CROSS JOIN LATERAL (
  SELECT id FROM onlyonce.records r WHERE r.state = asked.state AND r.due_at <= asked.until LIMIT $3
) due LIMIT $3";

/// A page of all records after the id `$1`: at most `$2`, and about `$3` bytes. `found` is how many
/// there were but for the bytes.
pub(crate) const LIST: &str = "
SELECT id, due_at, revision, record, found FROM (
  SELECT id, due_at, revision, record, count(*) OVER () AS found,
    sum(octet_length(record)) OVER (ORDER BY id) - octet_length(record) AS before
  FROM (
    SELECT id, due_at, revision, record FROM onlyonce.records WHERE $1 < id ORDER BY id LIMIT $2
  ) page
) counted WHERE before <= $3 ORDER BY id";

/// The same of one state `$4`, after the time `$5` and the id `$1`.
pub(crate) const LIST_STATE: &str = "
SELECT id, due_at, revision, record, found FROM (
  SELECT id, due_at, revision, record, count(*) OVER () AS found,
    sum(octet_length(record)) OVER (ORDER BY due_at, id) - octet_length(record) AS before
  FROM (
    SELECT id, due_at, revision, record FROM onlyonce.records
    WHERE state = $4 AND ($5, $1) < (due_at, id) ORDER BY due_at, id LIMIT $2
  ) page
) counted WHERE before <= $3 ORDER BY due_at, id";
