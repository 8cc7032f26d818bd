//! Every record reads back; nothing else is accepted, and nothing panics.

use onlyonce_core::Timestamp;
use proptest::prelude::*;

use super::*;

fn time() -> impl Strategy<Value = Timestamp> {
    any::<u64>().prop_map(Timestamp::from_millis)
}

fn doubt() -> impl Strategy<Value = Doubt> {
    (time(), prop::sample::select(Cause::ALL.to_vec()), prop::option::of(1_u64..))
        .prop_map(|(since, cause, only)| Doubt { since, cause, only: only.and_then(Fence::new) })
}

fn state() -> impl Strategy<Value = State> {
    let flight =
        (any::<[u8; 16]>(), any::<u64>(), time(), any::<bool>(), prop::option::of(doubt()))
            .prop_map(|(random, number, lease_until, committing, inherited)| {
                State::InFlight(Flight {
                    claim_id: ClaimId::from_bytes(random),
                    holder: Holder {
                        host: number.to_le_bytes(),
                        boot: random,
                        pid_namespace: number as u32,
                        pid: (number >> 32) as u32,
                        started: number,
                        time_namespace: (number >> 16) as u32,
                    },
                    lease_until,
                    phase: if committing { Phase::Committing } else { Phase::Prepared },
                    inherited,
                })
            });
    let reply = (any::<u16>(), prop::option::of(prop::collection::vec(any::<u8>(), 0..200)))
        .prop_map(|(status, content)| match content {
            Some(content) => Reply::kept(status, content),
            None => Reply::not_kept(status),
        });
    let completed = (reply, time(), time(), any::<bool>()).prop_map(
        |(reply, answered_at, retain_until, sealed)| State::Completed {
            reply,
            answered_at,
            retain_until,
            sealed,
        },
    );
    let tombstone = (time(), any::<u16>(), time(), any::<bool>(), any::<[u8; 8]>()).prop_map(
        |(answered_at, status, forget_at, sealed, digest)| State::Tombstone {
            answered_at,
            status,
            forget_at,
            sealed,
            digest: ReplyDigest::from_bytes(digest),
        },
    );
    prop_oneof![
        flight,
        time().prop_map(|since| State::Released { since }),
        completed,
        doubt().prop_map(State::Unknown),
        tombstone,
    ]
}

fn history() -> impl Strategy<Value = History> {
    let entry = (time(), prop::sample::select(Event::ALL.to_vec()), 1_u64.., ".{0,20}", ".{0,20}")
        .prop_map(|(at, event, fence, by, why)| Entry {
            at,
            event,
            fence: Fence::new(fence).unwrap(),
            by,
            why,
        });
    prop::collection::vec(entry, 0..4).prop_map(History::from_entries)
}

prop_compose! {
    fn record()(
        (first, second, third) in (1_u64..1 << 50, 0_u64..1 << 50, 0_u64..1 << 50),
        (fingerprint, credential) in (any::<Option<(u8, [u8; 32])>>(), any::<Option<[u8; 16]>>()),
        (attempt, runs_authorised, rerun) in any::<(u32, u32, bool)>(),
        first_commit_at in prop::option::of(time()),
        key_time in prop::option::of(time()),
        evidence in prop::option::of(prop::collection::vec(any::<u8>(), 0..40)),
        history in history(),
        state in state(),
    ) -> Record {
        Record {
            revision: Revision::new(first + second + third).unwrap(),
            fingerprint: fingerprint.map(|(version, digest)| Fingerprint::new(version, digest)),
            credential: credential.map(Credential::from_bytes),
            first_fence: Fence::new(first).unwrap(),
            fence: Fence::new(first + second).unwrap(),
            attempt,
            first_commit_at,
            runs_authorised,
            rerun,
            key_time,
            evidence: evidence.and_then(Evidence::new),
            history,
            state,
        }
    }
}

fn encoded(id: KeyId, record: &Record) -> Bytes {
    let mut out = Vec::new();
    encode(id, record, &mut out);
    out.into()
}

proptest! {
    #[test]
    fn a_record_reads_back(id: [u8; 16], record in record()) {
        let id = KeyId::from_bytes(id);
        prop_assert_eq!(decode(encoded(id, &record)), Ok((id, record)));
    }

    /// Case B16.
    #[test]
    fn a_shortened_record_is_never_taken_for_the_whole(record in record(), cut: usize) {
        let bytes = encoded(KeyId::from_bytes([7; 16]), &record);
        let cut = cut % bytes.len();
        let read = decode(bytes.slice(..cut));
        // A kept reply runs to the end, so losing its tail can only be seen by the checksum.
        if !matches!(record.state, State::Completed { .. }) {
            prop_assert!(read.is_err());
        }
    }

    /// Case B25.
    #[test]
    fn arbitrary_bytes_do_not_panic(mut bytes: Vec<u8>, version: bool) {
        if let (true, Some(first)) = (version, bytes.first_mut()) {
            *first = (OLDEST + (*first >> 6) % VERSION) << 4 | *first & 0x07;
        }
        if let Ok((id, record)) = decode(bytes.clone().into()) {
            prop_assert_eq!(encoded(id, &record), bytes);
        }
    }
}

#[test]
fn a_tombstone_with_its_journal_frame_takes_at_most_96_bytes() {
    const DAY: u64 = 86_400_000;
    let now = Timestamp::from_millis(1_764_000_000_000);
    let record = Record {
        revision: Revision::new(now.as_millis()).unwrap(),
        fingerprint: Some(Fingerprint::new(1, [3; 32])),
        credential: None,
        first_fence: Fence::new(now.as_millis() - 2 * DAY).unwrap(),
        fence: Fence::new(now.as_millis() - 2 * DAY).unwrap(),
        attempt: 1,
        first_commit_at: None,
        runs_authorised: 0,
        rerun: false,
        key_time: Some(Timestamp::from_millis(now.as_millis() - 3 * DAY)),
        evidence: None,
        history: History::default(),
        state: State::Tombstone {
            answered_at: Timestamp::from_millis(now.as_millis() - DAY),
            status: 201,
            forget_at: now.plus_millis(29 * DAY),
            sealed: false,
            digest: Reply::kept(201, "x").digest(),
        },
    };
    let bytes = encoded(KeyId::from_bytes([1; 16]), &record);
    let frame = 8; // Length and checksum.
    assert!(bytes.len() + frame <= 96, "{} bytes", bytes.len() + frame);
}

/// A completed record as each version has written it: these bytes stay readable for ever.
const GOLDEN: [(u8, &[u8]); 3] = [
    (
        1,
        b"\x13\x00\x02\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\
          \xE8\x07\x0A\xC9\x00\x00\x90\x4Eorder 7829",
    ),
    (
        2,
        b"\x23\x20\x00\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\
          \xE8\x07\x0A\x01\x00\x09\xDE\x07\x04anna\x05asked\xC9\x00\x00\x90\x4E",
    ),
    (
        3,
        b"\x33\x20\x02\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\
          \xE8\x07\x0A\x01\x00\x0A\xDE\x07\x06holder\x18another answer, with 500\
          \xC9\x00\x00\x90\x4Eorder 7829",
    ),
];

#[test]
fn what_each_earlier_version_has_written_is_read_and_written_so_again() {
    for (version, bytes) in GOLDEN {
        let (id, record) = decode(Bytes::from_static(bytes)).unwrap();
        assert_eq!(id, KeyId::from_bytes([7; 16]));
        let number = Timestamp::from_millis;
        let State::Completed { reply, answered_at, retain_until, sealed: false } = &record.state
        else {
            panic!("{record:?}")
        };
        assert_eq!((record.revision.get(), record.fence.get()), (1_000, 990));
        assert_eq!((*answered_at, *retain_until), (number(1_000), number(6_000)));
        let kept = if version == 2 { Reply::not_kept(201) } else { Reply::kept(201, "order 7829") };
        assert_eq!(*reply, kept);
        assert_eq!((record.is_erased(), record.has_alarm()), (version == 2, version == 3));
        assert_eq!(encoded(id, &record), bytes, "version {version}");
    }
    let newest = GOLDEN.last().unwrap().0;
    assert_eq!(newest, VERSION, "a new version needs bytes here");
}

#[test]
fn a_version_cannot_hold_what_came_after_it() {
    for (bytes, other) in [(GOLDEN[0].1, 2), (GOLDEN[1].1, 1), (GOLDEN[1].1, 3), (GOLDEN[2].1, 2)] {
        let mut bytes = bytes.to_vec();
        bytes[0] = other << 4 | bytes[0] & 0x0F;
        assert_eq!(decode(bytes.into()), Err(CodecError::Invalid("version")));
    }
}

/// Case B25.
#[test]
fn a_newer_format_is_named_not_guessed() {
    let next = CodecError::Version(VERSION + 1);
    assert_eq!(decode(Bytes::from(vec![(VERSION + 1) << 4 | 3, 1, 2])), Err(next));
    assert!(next.to_string().contains("record format 4"), "{next}");
    assert!(next.to_string().contains("use a newer onlyonce"), "{next}");
    assert_eq!(decode(Bytes::from_static(&[0x91, 1, 2])), Err(CodecError::Version(9)));
    assert_eq!(decode(Bytes::new()), Err(CodecError::Truncated("version")));
}

/// A holder whose time namespace is not known is written as it was before there was a place for it.
#[test]
fn a_holder_is_read_with_its_time_namespace_or_without_as_it_was_written() {
    for (time_namespace, version) in [(0, OLDEST), (0xEFFF_FFFA, 3)] {
        let holder = Holder { pid: 7, started: 4_711, time_namespace, ..Holder::default() };
        let (claim_id, phase) = (ClaimId::from_bytes([1; 16]), Phase::Committing);
        let lease_until = Timestamp::from_millis(31_000);
        let flight = Flight { claim_id, holder, lease_until, phase, inherited: None };
        let (id, record) = decode(Bytes::from_static(GOLDEN[0].1)).unwrap();
        let record = Record { state: State::InFlight(flight), ..record };
        let bytes = encoded(id, &record);
        assert_eq!(bytes[0] >> 4, version);
        assert_eq!(decode(bytes), Ok((id, record)));
    }
}
