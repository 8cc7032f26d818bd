//! The tables, and the statements about them. All of them name the schema, since nothing can be
//! set for a session.

/// The format of the tables: how many of [`STEPS`] were taken. A program refuses a database with
/// another one. The functions in SQL name it too.
pub(crate) const VERSION: i32 = 2;
const _: () = assert!(STEPS.len() == VERSION as usize);

/// The steps that make the tables. A new store takes all of them, and an older one those above its
/// format, in one transaction. Once it was released no step is changed: what is to be otherwise is
/// a step more. A new table must be granted, and is told with the release.
pub(crate) const STEPS: [&str; 2] = [TABLES, SWAP];

/// Rows in which processes note their largest revision. One for all would be locked by one
/// transaction until it is synced, and make all others wait.
pub(crate) const SLOTS: i16 = 64;

/// The first step.
///
/// `records_due` serves the sweeper and listings of one state. A key id carries no time, so rows
/// cannot be dropped by the partition; they are deleted one by one, in batches like all writes, and
/// a vacuum that begins early and does not pause gives the room to the rows that come.
const TABLES: &str = "
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

/// The second step: what the store writes by.
const SWAP: &str = include_str!("functions/swap.sql");

/// Where transactions of callers note their largest revision: a row of `revisions` would be locked
/// until their end, which may be far. What is noted here stays if one is rolled back, and of two at
/// once the lower may come last: so it is exact but for the moment in which they overlap.
/// Any process on the store may read it, as it starts with that.
pub(crate) const NOTED: &str = "
CREATE SEQUENCE IF NOT EXISTS onlyonce.noted;
GRANT SELECT ON SEQUENCE onlyonce.noted TO PUBLIC;
";

/// The functions: what the store writes by, and those for callers in other languages, made anew
/// over older ones. Only one at a time may do that, or the server would fail one of the two.
pub(crate) const FUNCTIONS: &str = concat!(
    include_str!("functions/swap.sql"),
    include_str!("functions/record.sql"),
    include_str!("functions/decide.sql"),
    include_str!("functions/calls.sql"),
);

/// The mark of the program that has made the functions, if all that belongs to them is there.
pub(crate) const FUNCTIONS_MARK: &str = "
SELECT pg_catalog.obj_description(to_regproc('onlyonce.claim'), 'pg_proc')
WHERE to_regproc('onlyonce.complete') IS NOT NULL AND to_regproc('onlyonce._swap') IS NOT NULL
  AND to_regclass('onlyonce.noted') IS NOT NULL";

/// The format, once nobody else changes it; until the end of the transaction.
pub(crate) const LOCK_STORE: &str = "SELECT version FROM onlyonce.store FOR UPDATE";
pub(crate) const SET_VERSION: &str = "UPDATE onlyonce.store SET version = $1";

pub(crate) const MAKE_STORE: &str = "INSERT INTO onlyonce.store (only_row, version, secret, floor) \
                                     VALUES (true, $1, $2, $3)";
pub(crate) const MAKE_SLOTS: &str = "INSERT INTO onlyonce.revisions (slot, revision) \
                                     SELECT slot, 0 FROM generate_series(0, $1::int4) AS slot";

/// The server's clock in milliseconds, at the moment of the question and not of its transaction.
pub(crate) const CLOCK: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
pub(crate) const FLOOR: &str = "SELECT floor FROM onlyonce.store";
/// A store that was made before there were transactions of callers has no such sequence.
pub(crate) const REVISION_MAX: &str = "
SELECT greatest(max(revision), pg_sequence_last_value(to_regclass('onlyonce.noted')))
FROM onlyonce.revisions";
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

/// In a transaction of a caller's, who may have set any search path: makes a row where there is
/// none, waiting for whoever is about to; a row if it was made.
pub(crate) const TX_MAKE: &str = "
WITH made AS (
  INSERT INTO onlyonce.records (id, revision, state, due_at, record)
  VALUES ($1, $2, $3, $4, $5) ON CONFLICT (id) DO NOTHING RETURNING revision
) SELECT CASE WHEN n.last_value < made.revision
    THEN pg_catalog.setval('onlyonce.noted', made.revision) END
  FROM made CROSS JOIN onlyonce.noted n";

/// Changes the row of this revision; a row if it was changed.
pub(crate) const TX_CHANGE: &str = "
WITH made AS (
  UPDATE onlyonce.records SET revision = $2, state = $3, due_at = $4, record = $5
  WHERE id = $1 AND revision = $6 RETURNING revision
) SELECT CASE WHEN n.last_value < made.revision
    THEN pg_catalog.setval('onlyonce.noted', made.revision) END
  FROM made CROSS JOIN onlyonce.noted n";

/// Takes back what this transaction has made.
pub(crate) const TX_UNMAKE: &str = "DELETE FROM onlyonce.records WHERE id = $1";

pub(crate) const TX_STORE: &str = "
SELECT version, secret, floor, pg_catalog.current_setting('transaction_isolation'),
  EXISTS (SELECT FROM onlyonce.records WHERE id = $1),
  (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000)::bigint,
  EXISTS (SELECT FROM onlyonce.records WHERE id = $2) FROM onlyonce.store";

/// Waits for whoever is changing it; then nobody else can until the end of the transaction.
pub(crate) const TX_LOCK: &str =
    "SELECT id, revision, record FROM onlyonce.records WHERE id = $1 FOR UPDATE";

/// Fails if the floor was raised since the snapshot was taken: only a lock looks at what is newer.
/// It is given up at once, so that it holds up nobody who raises the floor.
pub(crate) const TX_FLOOR_SEEN: &str = "SAVEPOINT onlyonce; \
                                        SELECT floor FROM onlyonce.store FOR SHARE; \
                                        ROLLBACK TO SAVEPOINT onlyonce; \
                                        RELEASE SAVEPOINT onlyonce";

/// Fails in a transaction in which something has failed.
pub(crate) const TX_ALIVE: &str = "SELECT 1";

/// Until the end of the transaction only.
pub(crate) const TX_DURABLE: &str = "
SELECT pg_catalog.set_config('synchronous_commit', 'on', true)
WHERE pg_catalog.current_setting('synchronous_commit') IN ('off', 'local')";
