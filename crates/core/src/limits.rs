//! Every bound of the core in one place, with the relations between them asserted.

use core::time::Duration;

/// Longest idempotency key in bytes, after decoding.
pub const KEY_BYTES_MAX: usize = 255;
/// Longest scope in bytes. Long credentials are hashed before they become a scope.
pub const SCOPE_BYTES_MAX: usize = 1024;
/// Most entries a record's history keeps; when full, the oldest but the first are dropped.
pub const HISTORY_ENTRIES_MAX: usize = 16;
/// Most second replies that a record's history tells of; later ones are alarms that leave no entry.
/// So few that none of them is dropped for another, and that at most so many older entries are
/// dropped for them, where a history is full already.
pub const SECOND_REPLIES_MAX: usize = 4;
/// Longest text (who, why) in a history entry, in bytes. Longer text is cut at a character.
pub const HISTORY_TEXT_BYTES_MAX: usize = 256;
/// Longest evidence (such as an external id) in bytes.
pub const EVIDENCE_BYTES_MAX: usize = 512;
/// Largest reply any store may be asked to keep, in bytes.
pub const REPLY_BYTES_MAX: usize = 64 << 20;

/// Shortest lease: below it, renewals (at a third) would compete with the scheduler.
pub const LEASE_MIN: Duration = Duration::from_millis(100);
/// Longest lease: how long a crash may keep a key waiting.
pub const LEASE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Largest clock difference between our own processes that can be configured.
pub const SKEW_MAX: Duration = Duration::from_secs(60 * 60);
/// How far ahead of ours a client's clock may be at most: a store that is new, restored or lost
/// refuses keys with a time up to that far from its beginning, since they may have run.
pub const KEY_AHEAD_MAX: Duration = Duration::from_secs(300);
/// Longest retention of a reply or tombstone that can be named: a hundred years.
pub const RETENTION_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
/// A `remember` that never ends: the times that it is added to saturate.
pub const FOREVER: Duration = Duration::MAX;

const _: () = assert!(KEY_BYTES_MAX < SCOPE_BYTES_MAX);
const _: () = assert!(2 <= HISTORY_ENTRIES_MAX && HISTORY_ENTRIES_MAX <= u8::MAX as usize);
// Once answered, a record is told of at most once more beside them: that it was erased.
const _: () = assert!(SECOND_REPLIES_MAX + 2 < HISTORY_ENTRIES_MAX);
const _: () = assert!(HISTORY_TEXT_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(EVIDENCE_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(REPLY_BYTES_MAX <= u32::MAX as usize);
