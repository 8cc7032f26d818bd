//! What a completion in a transaction may say, state by state.

use onlyonce_core::Revision;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_764_000_000_000);

fn request() -> Request {
    let secret = Secret::from_bytes([1; 32]);
    let (scope, key) = (Scope::new("orders").unwrap(), Key::new("7829").unwrap());
    Request::new(&secret, &scope, &key, b"one blender")
}

fn claimed() -> Record {
    let claim = request().claim(ClaimId::from_bytes([1; 16]));
    match decide(NOW, Floor::NONE, &Policy::default(), None, &claim).next {
        Next::Write(record) => record,
        other @ (Next::Keep | Next::Delete) => panic!("{other:?}"),
    }
}

fn after(record: &Record, command: &Command) -> Record {
    match decide(NOW, Floor::NONE, &Policy::default(), Some(record), command).next {
        Next::Write(record) => record,
        other @ (Next::Keep | Next::Delete) => panic!("{other:?}"),
    }
}

#[test]
fn only_the_latest_claim_completes_and_only_once() {
    let (record, policy) = (claimed(), Policy::default());
    let reply = || Reply::kept(201, "order 7829");
    let say = |record: &Record, fence| complete(NOW, &policy, record, fence, reply());
    let fence = record.fence;
    let done = say(&record, fence).unwrap();
    assert!(matches!(&done.state, State::Completed { reply: kept, .. } if *kept == reply()));
    // The same answer again is another transaction that has run it.
    assert_eq!(say(&done, fence), Err(Outcome::Fenced));
    let above = Fence::of(Revision::after(Some(record.revision), NOW));
    assert_eq!(say(&record, above), Err(Outcome::InvalidFence));
    let released = after(&record, &Command::Release { fence, stranger: false });
    assert_eq!(say(&released, fence), Err(Outcome::Fenced));
    let again = after(&released, &request().claim(ClaimId::from_bytes([2; 16])));
    assert_eq!(say(&again, fence), Err(Outcome::Fenced));
    assert!(say(&again, again.fence).is_ok());
}

#[test]
fn a_claim_whose_lease_is_over_may_still_complete_if_no_other_was_granted() {
    let (record, policy) = (claimed(), Policy::default());
    let late = NOW.plus(policy.lease).plus(policy.skew_max);
    let done = complete(late, &policy, &record, record.fence, Reply::kept(201, "")).unwrap();
    assert!(matches!(done.state, State::Completed { .. }));
    let (fence, cause) = (record.fence, onlyonce_core::Cause::Abandoned);
    let unknown = after(&record, &Command::Abandon { fence, cause });
    assert!(complete(NOW, &policy, &unknown, fence, Reply::kept(201, "")).is_ok());
}

#[test]
fn an_error_says_whether_it_happened_and_whether_to_send_again() {
    for (kind, may_have, again, says) in [
        (TxErrorKind::Again, false, true, "it did not happen; send it again with the same key"),
        (TxErrorKind::NotExecuted, false, false, "it did not happen"),
        (TxErrorKind::Fenced, false, false, "it did not happen in this transaction; roll it back"),
        (TxErrorKind::Damaged, false, false, "it did not happen"),
        (TxErrorKind::Unknown, true, true, "it happened whole or not at all; send it again"),
    ] {
        let error = TxError::new(kind, "place");
        assert_eq!((error.may_have_happened(), error.is_retryable()), (may_have, again));
        assert!(error.to_string().starts_with(says), "{error}");
    }
}

#[test]
fn a_fingerprint_is_the_hmac_that_sql_computes() {
    // python3 -c 'import hmac
    // h = lambda k, *p: hmac.new(k, b"".join(len(x).to_bytes(4, "big") + x for x in p), "sha256")
    // k = h(b"\x01"*32, b"derive", b"transaction request").digest()
    // print(h(k, b"one blender").hexdigest())'
    let digest = request().fingerprint;
    let hex: String = digest.digest().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "f7bd50b8de6b679c3af5c3a3818710a4aaabe8039cd935dc6c41c1821c41b17b");
    assert_eq!(request().key_time, None);
}
