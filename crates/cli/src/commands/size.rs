//! `onlyonce size`: what a store takes, and what a late retry gets at each age.

use std::time::Duration;

use bytes::Bytes;
use onlyonce_core::limits::FOREVER;
use onlyonce_core::{
    Claim, ClaimId, Command, Fingerprint, Floor, Holder, KeyId, Next, Phase, Policy, Record, Reply,
    Timestamp, decide,
};
use onlyonce_store::codec;

use crate::args::{Kind, SizeArgs};
use crate::failure::Failure;
use crate::output;

/// Around each entry of the journal, in bytes.
const FRAME: u64 = 8;
/// A deletion with its frame, in bytes.
const DELETED: u64 = FRAME + 25;
/// What the index takes at most for a key, in bytes; a test of the journal holds it.
const INDEX: u64 = 64;
/// What a tombstone takes at most in memory once it has left the index; a test holds it.
const SHELVED: u64 = 2;
/// How long a tombstone is in the index at most, in seconds: a day, and what is looked for at once.
const IN_INDEX: f64 = DAY + DAY / 24.0;
/// The segment that is written to and the one that comes next, in bytes.
const SEGMENTS: u64 = 2 * (64 << 20);

/// In seconds.
const DAY: f64 = 86_400.0;

/// Bytes on disk of the entries of one key.
struct Entries {
    claim: u64,
    complete: u64,
    tombstone: u64,
}

/// What a key takes at least in a store that is not ours, in bytes: measured with 2,400 to 5,000
/// keys that were claimed and answered, then swept, with all that a server keeps for a while gone.
struct Measured {
    /// What it is that was measured.
    what: &'static str,
    /// Beside the reply; the least with replies of 64, 1,024 and 4,096 bytes.
    beside: u64,
    /// Once its reply is no longer kept.
    without: u64,
    /// What comes on top of it, and is not known here.
    unknown: &'static str,
}

impl Kind {
    /// `None` for what is worked out.
    const fn measured(self) -> Option<Measured> {
        Some(match self {
            Self::Journal => return None,
            Self::Sqlite => Measured {
                what: "file",
                beside: 268,
                without: 323,
                unknown: "the write-ahead file, up to some MiB; room of forgotten keys stays in it",
            },
            Self::Postgres => Measured {
                what: "table and indexes",
                beside: 384,
                without: 310,
                unknown: "row versions until they are vacuumed, and the server's log (WAL)",
            },
            Self::Redis => Measured {
                what: "memory of each server that has the key",
                beside: 375,
                without: 256,
                unknown: "the append-only file: each write anew until the server rewrites it",
            },
            Self::Etcd => Measured {
                what: "disk of each member, read through memory",
                beside: 834,
                without: 845,
                unknown: "old revisions until they are compacted, and etcd's own log; 2 GiB in \
                          all unless etcd is told otherwise (--quota-backend-bytes)",
            },
        })
    }
}

/// How many keys there are once it is running.
struct Keys {
    with_reply: f64,
    /// What is remembered for ever never stops growing, so it is told for each day.
    without: f64,
    is_forever: bool,
}

impl Keys {
    /// What grows beside what does not, in bytes.
    fn whole(&self, fixed: f64, growing: f64) -> String {
        if self.is_forever {
            format!("{}, and {} more each day", bytes(fixed), bytes(growing))
        } else {
            bytes(fixed + growing)
        }
    }

    fn rows(&self) -> [[String; 2]; 2] {
        let without = count(self.without);
        let remembered =
            if self.is_forever { format!("all, {without} more each day") } else { without };
        [
            ["keys with a reply".to_owned(), count(self.with_reply)],
            ["keys without it, remembered as used".to_owned(), remembered],
        ]
    }
}

pub(crate) fn run(args: &SizeArgs) -> Result<(), Failure> {
    let SizeArgs { kind, rate, retention, remember, .. } = *args;
    let retention = Duration::from(retention);
    let policy = Policy { retention, remember, ..Policy::default() };
    let policy = policy.check().map_err(|error| {
        Failure::new(crate::exit::Exit::Usage, format!("--retention and --remember: {error}"))
    })?;
    let is_forever = remember == FOREVER;
    let keys = Keys {
        with_reply: rate * retention.as_secs_f64(),
        without: if is_forever { DAY } else { (remember - retention).as_secs_f64() } * rate,
        is_forever,
    };
    match kind.measured() {
        None => {
            let rows = journal(args, &policy, &keys);
            output::line(&output::table(["A JOURNAL TAKES", ""], &rows))?;
        }
        Some(measured) => {
            let rows = shared(args, &measured, &keys);
            output::line(&output::table(["SUCH A STORE TAKES", ""], &rows))?;
            output::line(
                "measured with small stores of made-up answers: a least, and no promise of what \
                 more keys take",
            )?;
        }
    }
    output::line("")?;
    output::line(&output::table(["A RETRY AFTER", "TIMED KEY", "OTHER KEY"], &ages(&policy)))?;
    Ok(output::line("Ages count from completion. A timed key carries its time, such as a UUIDv7.")?)
}

fn journal(args: &SizeArgs, policy: &Policy, keys: &Keys) -> Vec<[String; 2]> {
    let SizeArgs { rate, reply_size, .. } = *args;
    let Keys { with_reply, without, is_forever } = *keys;
    let one = entries(reply_size, policy);
    let replies = with_reply * (one.claim + one.complete) as f64;
    let tombstones = without * one.tombstone as f64;
    let segments = SEGMENTS as f64;
    let mut rows = keys.rows().to_vec();
    rows.extend([
        ["disk, at least".to_owned(), keys.whole(replies + segments, tombstones)],
        ["disk, before dead records are reclaimed".to_owned(), {
            keys.whole(2.0 * replies + segments, if is_forever { 1.0 } else { 2.0 } * tombstones)
        }],
        ["memory for keys, at most".to_owned(), {
            let young = if is_forever { IN_INDEX * rate } else { without.min(IN_INDEX * rate) };
            let old = if is_forever { without } else { without - young };
            keys.whole((with_reply + young) * INDEX as f64, old * SHELVED as f64)
        }],
        ["written, a second".to_owned(), {
            let deleted = if is_forever { 0 } else { DELETED };
            bytes(rate * (one.claim + one.complete + one.tombstone + deleted) as f64)
        }],
        ["syncs, a second, at most".to_owned(), count(4.0 * rate)],
    ]);
    rows
}

fn shared(args: &SizeArgs, measured: &Measured, keys: &Keys) -> Vec<[String; 2]> {
    let Measured { what, beside, without, unknown } = *measured;
    let replies = keys.with_reply * (args.reply_size + beside) as f64;
    let mut rows = keys.rows().to_vec();
    rows.extend([
        [format!("{what}, at least"), keys.whole(replies, keys.without * without as f64)],
        ["and beside it, not known here".to_owned(), unknown.to_owned()],
        ["writes of records, a second".to_owned(), {
            // Claimed, answered, a tombstone, forgotten.
            count(if keys.is_forever { 3.0 } else { 4.0 } * args.rate)
        }],
    ]);
    rows
}

fn ages(policy: &Policy) -> Vec<[String; 3]> {
    let span = |it: Duration| humantime::format_duration(it).to_string();
    let row = |age: String, timed: &str, other: &str| [age, timed.to_owned(), other.to_owned()];
    let (gone, expired) = ("410 reply-not-kept", "412 key-expired, never a second run");
    let retention = span(policy.retention);
    let first = row(format!("up to {retention}"), "the same answer", "the same answer");
    if policy.remember == FOREVER {
        return vec![first, row(format!("more than {retention}"), gone, gone)];
    }
    let remember = span(policy.remember);
    vec![
        first,
        row(format!("{retention} to {remember}"), gone, gone),
        row(format!("more than {remember}"), expired, "runs as new"),
    ]
}

/// What the journal would write for one key.
fn entries(reply_size: u64, policy: &Policy) -> Entries {
    let now = Timestamp::from_millis(1_764_000_000_000);
    let claim = Command::Claim(Claim {
        fingerprint: Fingerprint::new(1, [7; 32]),
        claim_id: ClaimId::from_bytes([1; 16]),
        holder: Holder::default(),
        key_time: Some(now),
        credential: None,
        phase: Phase::Committing,
    });
    let claimed = written(now, policy, None, &claim);
    let reply = Reply::kept(201, Bytes::from(vec![0; reply_size as usize]));
    let fence = claimed.fence;
    let complete = Command::Complete { fence, reply };
    let completed = written(now.plus_millis(40), policy, Some(&claimed), &complete);
    let late = now.plus(policy.retention).plus_millis(50);
    let tombstone = written(late, policy, Some(&completed), &Command::Sweep);
    let size = |record: &Record| {
        let mut bytes = Vec::new();
        codec::encode(KeyId::from_bytes([1; 16]), record, &mut bytes);
        FRAME + bytes.len() as u64
    };
    let (claim, complete, tombstone) = (size(&claimed), size(&completed), size(&tombstone));
    Entries { claim, complete, tombstone }
}

fn written(now: Timestamp, policy: &Policy, record: Option<&Record>, command: &Command) -> Record {
    match decide(now, Floor::NONE, policy, record, command).next {
        Next::Write(record) => record,
        Next::Keep | Next::Delete => unreachable!("a new key is written at each of these steps"),
    }
}

fn bytes(number: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut number, mut at) = (number, 0);
    while 1024.0 <= number && at + 1 < units.len() {
        (number, at) = (number / 1024.0, at + 1);
    }
    format!("{number:.1} {}", units[at])
}

fn count(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if 0 < at && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_format() {
        let one = entries(1_024, &Policy::default());
        assert!(one.tombstone <= 96, "{}", one.tombstone);
        assert!(1_024 < one.complete && one.complete < 1_200, "{}", one.complete);
        assert!(one.claim < 200, "{}", one.claim);
        let forever = Policy { remember: FOREVER, ..Policy::default() };
        assert!(entries(1_024, &forever).tombstone <= 96, "no end takes no more room");
        assert_eq!(ages(&forever).len(), 2);
        assert_eq!((bytes(1_536.0), count(1_234_567.0)), ("1.5 KiB".into(), "1,234,567".into()));
    }
}
