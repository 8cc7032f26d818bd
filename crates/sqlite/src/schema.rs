//! The tables, and who may use which.

/// Says in the file's header that it is ours: "once" in ASCII (`PRAGMA application_id`).
pub(crate) const APPLICATION_ID: i32 = 0x6F6E_6365;
/// The format of the tables (`PRAGMA user_version`): how many of [`STEPS`] were taken. A program
/// refuses a file with another one.
pub(crate) const VERSION: i32 = 1;
const _: () = assert!(STEPS.len() == VERSION as usize);

/// The steps that make the tables. A new store takes all of them, and an older one those above its
/// format, in one transaction. Once it was released no step is changed: what is to be otherwise is
/// a step more.
pub(crate) const STEPS: [&str; 1] = [TABLES];

/// The first step. `records_due` serves the sweeper and listings of one state; it holds the id,
/// so that neither reads a record to find it. `WITHOUT ROWID` would put whole replies into the
/// inner pages of the tree.
const TABLES: &str = "
CREATE TABLE store (
  only_row INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
  secret BLOB NOT NULL,
  floor INTEGER NOT NULL,
  revision_max INTEGER NOT NULL
) STRICT;
CREATE TABLE records (
  id BLOB NOT NULL PRIMARY KEY,
  revision INTEGER NOT NULL,
  state INTEGER NOT NULL,
  due_at INTEGER NOT NULL,
  record BLOB NOT NULL
) STRICT;
CREATE INDEX records_due ON records (state, due_at, id);
";

pub(crate) const MAKE_STORE: &str =
    "INSERT INTO store (only_row, secret, floor, revision_max) VALUES (1, ?1, ?2, 0)";
pub(crate) const SECRET: &str = "SELECT secret FROM store";
pub(crate) const FLOOR: &str = "SELECT floor FROM store";
pub(crate) const REVISION_MAX: &str = "SELECT revision_max FROM store";
pub(crate) const RAISE_FLOOR: &str = "UPDATE store SET floor = ?1 WHERE floor < ?1";
pub(crate) const RAISE_REVISION: &str =
    "UPDATE store SET revision_max = ?1 WHERE revision_max < ?1";

pub(crate) const GET: &str = "SELECT revision, record FROM records WHERE id = ?1";
pub(crate) const INSERT: &str = "INSERT INTO records (id, revision, state, due_at, record) \
                                 VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (id) DO NOTHING";
pub(crate) const UPDATE: &str = "UPDATE records SET revision = ?2, state = ?3, due_at = ?4, \
                                 record = ?5 WHERE id = ?1 AND revision = ?6";
pub(crate) const DELETE: &str = "DELETE FROM records WHERE id = ?1 AND revision = ?2";

pub(crate) const DUE: &str = "SELECT id FROM records WHERE state = ?1 AND due_at <= ?2 LIMIT ?3";
pub(crate) const LIST: &str =
    "SELECT id, due_at, revision, record FROM records WHERE ?1 < id ORDER BY id LIMIT ?2";
pub(crate) const LIST_STATE: &str = "SELECT id, due_at, revision, record FROM records \
                                     WHERE state = ?1 AND (?2, ?3) < (due_at, id) \
                                     ORDER BY due_at, id LIMIT ?4";
pub(crate) const COUNT: &str = "SELECT count(*) FROM records";
pub(crate) const COUNT_STATE: &str = "SELECT count(*) FROM records WHERE state = ?1";

/// In a transaction of a caller's: takes the write lock, and changes nothing. Names are of the main
/// database, whatever temporary tables there are.
pub(crate) const LOCK: &str = "UPDATE main.store SET floor = floor WHERE false";
pub(crate) const WHOSE: &str = "
SELECT secret, floor, EXISTS (SELECT 1 FROM main.records WHERE id = ?1),
  CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER),
  EXISTS (SELECT 1 FROM main.records WHERE id = ?2) FROM main.store";
pub(crate) const TX_VERSION: &str = "PRAGMA main.user_version";
pub(crate) const TX_GET: &str = "SELECT revision, record FROM main.records WHERE id = ?1";
/// Takes a sixth value like the next one, and has no use for it.
pub(crate) const TX_MAKE: &str = "
INSERT INTO main.records (id, revision, state, due_at, record)
SELECT ?1, ?2, ?3, ?4, ?5 WHERE ?6 IS NULL ON CONFLICT (id) DO NOTHING";
pub(crate) const TX_CHANGE: &str = "
UPDATE main.records SET revision = ?2, state = ?3, due_at = ?4, record = ?5
WHERE id = ?1 AND revision = ?6";
pub(crate) const TX_REVISION: &str =
    "UPDATE main.store SET revision_max = ?1 WHERE revision_max < ?1";
/// What is attached beside the main database and the temporary one.
pub(crate) const ATTACHED: &str = "SELECT name FROM pragma_database_list WHERE 1 < seq";
