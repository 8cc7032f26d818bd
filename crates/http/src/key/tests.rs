//! Every way to write a key, and every way to write none.

use proptest::prelude::*;

use super::*;
use crate::headers::IDEMPOTENCY_KEY;

fn read(value: &[u8], spelling: KeySpelling) -> Result<String, KeyFieldError> {
    parse_value(value, spelling).map(|key| key.as_str().to_owned())
}

const UUID: &str = "8e03978e-40d5-43e8-bc93-6894a57f9324";

#[test]
fn quoted_and_bare_are_the_same_key() {
    let quoted = format!("\"{UUID}\"");
    assert_eq!(read(quoted.as_bytes(), KeySpelling::Lenient).unwrap(), UUID);
    assert_eq!(read(UUID.as_bytes(), KeySpelling::Lenient).unwrap(), UUID);
    assert_eq!(read(quoted.as_bytes(), KeySpelling::Strict).unwrap(), UUID);
    assert_eq!(read(UUID.as_bytes(), KeySpelling::Strict), Err(KeyFieldError::NotQuoted));
}

#[test]
fn the_vectors_of_accepted_keys() {
    for (wire, key) in [
        (r#""a\"b\\c""#, r#"a"b\c"#),
        ("'abc'", "'abc'"),
        (r#""abc";x=1"#, "abc"),
        (r#""abc";x"#, "abc"),
        (r#""abc"; x="a\"b";y=?1"#, "abc"),
        (r#""a, b; c""#, "a, b; c"),
        (" \t abc \t", "abc"),
        (r#"  " abc ""#, " abc "),
        (r"a\b", r"a\b"),
        (":abc", ":abc"),
        ("42", "42"),
    ] {
        assert_eq!(read(wire.as_bytes(), KeySpelling::Lenient).as_deref(), Ok(key), "{wire}");
    }
    assert_eq!(read(b"'abc'", KeySpelling::Strict), Err(KeyFieldError::NotQuoted));
}

/// Case B105.
#[test]
fn an_empty_or_blank_key_is_refused_and_never_a_shared_record() {
    for wire in ["", " ", "\t", "  \t ", "\"\"", "\"   \"", "\"\";x=1"] {
        for spelling in [KeySpelling::Lenient, KeySpelling::Strict] {
            assert_eq!(read(wire.as_bytes(), spelling), Err(KeyFieldError::Empty), "{wire:?}");
        }
    }
}

#[test]
fn the_vectors_of_refused_keys_name_the_place() {
    use KeyFieldError as E;
    for (wire, error) in [
        (&br#""a\nb""#[..], E::Escape { at: 2 }),
        (br#""a\"#, E::Escape { at: 2 }),
        (br#""abc"#, E::Unterminated),
        (br#"abc""#, E::Byte { at: 3, byte: b'"' }),
        (br#""abc", "abc""#, E::Joined { at: 5 }),
        (br#""abc" , "abc""#, E::Joined { at: 6 }),
        (br#""abc";x, "abc""#, E::Joined { at: 7 }),
        (b"a,b", E::Joined { at: 1 }),
        ("\"é\"".as_bytes(), E::Byte { at: 1, byte: 0xC3 }),
        (b"\"\xE9\"", E::Byte { at: 1, byte: 0xE9 }),
        (b" \xE9", E::Byte { at: 1, byte: 0xE9 }),
        (b":YWJj:", E::ByteSequence),
        (b"a b", E::Byte { at: 1, byte: b' ' }),
        (b"a;b", E::Byte { at: 1, byte: b';' }),
        (b"a\tb", E::Byte { at: 1, byte: b'\t' }),
        (b"\"a\tb\"", E::Byte { at: 2, byte: b'\t' }),
        (br#""abc"x"#, E::AfterString { at: 5 }),
        (br#""abc" ;x"#, E::AfterString { at: 5 }),
        (br#""abc";"#, E::AfterString { at: 6 }),
        (br#""abc";X"#, E::AfterString { at: 6 }),
        (br#""abc";x="#, E::AfterString { at: 8 }),
        (br#""abc";x="a"#, E::AfterString { at: 8 }),
    ] {
        let shown = String::from_utf8_lossy(wire);
        assert_eq!(read(wire, KeySpelling::Lenient), Err(error), "{shown}");
    }
}

/// Case B89.
#[test]
fn the_longest_key_is_255_bytes_after_decoding() {
    let longest = "k".repeat(255);
    assert_eq!(read(longest.as_bytes(), KeySpelling::Lenient).unwrap(), longest);
    let escaped = format!("\"{}\"", r#"\""#.repeat(255));
    assert_eq!(read(escaped.as_bytes(), KeySpelling::Strict).unwrap(), "\"".repeat(255));
    let longer = "k".repeat(256);
    let error = Err(KeyFieldError::TooLong { bytes: 256 });
    assert_eq!(read(longer.as_bytes(), KeySpelling::Lenient), error);
}

#[test]
fn two_lines_are_refused_even_if_equal_and_over_all_names() {
    let paypal = HeaderName::from_static("paypal-request-id");
    let names = [IDEMPOTENCY_KEY, paypal.clone()];
    let mut headers = HeaderMap::new();
    assert_eq!(parse(&headers, &names, KeySpelling::Lenient), Ok(None));
    headers.append(&paypal, HeaderValue::from_static("abc"));
    let key = parse(&headers, &names, KeySpelling::Lenient).unwrap().unwrap();
    assert_eq!(key.as_str(), "abc");
    headers.append(IDEMPOTENCY_KEY, HeaderValue::from_static("abc"));
    let repeated = KeyFieldError::Repeated { lines: 2 };
    assert_eq!(parse(&headers, &names, KeySpelling::Lenient), Err(repeated));
    headers.remove(&paypal);
    headers.append(IDEMPOTENCY_KEY, HeaderValue::from_static("\"\""));
    assert_eq!(parse(&headers, &names, KeySpelling::Lenient), Err(repeated));
}

#[test]
fn all_spellings_of_a_uuid_are_one_key_where_the_route_says_so() {
    let canonical =
        |text: &str| super::canonical(Key::new(text.to_owned()).unwrap(), KeyFormat::Uuid);
    let expect = Key::new(UUID).unwrap();
    for spelling in [
        UUID.to_owned(),
        UUID.to_ascii_uppercase(),
        format!("{{{UUID}}}"),
        UUID.replace('-', ""),
        format!("urn:uuid:{UUID}"),
    ] {
        assert_eq!(canonical(&spelling), Ok(expect.clone()), "{spelling}");
    }
    assert_eq!(canonical("order-7829"), Err(KeyFieldError::Format(KeyFormat::Uuid)));
    let other = super::canonical(Key::new("AbC").unwrap(), KeyFormat::Any).unwrap();
    assert_eq!(other.as_str(), "AbC");
}

#[test]
fn a_ulid_carries_its_time_where_the_route_says_so() {
    // The sample of the ULID specification: 01ARYZ6S41 is 1469918176385 ms.
    let lower = Key::new("01aryz6s41tsv4rrffq69g5fav").unwrap();
    let key = canonical(lower.clone(), KeyFormat::Ulid).unwrap();
    assert_eq!(key.as_str(), "01ARYZ6S41TSV4RRFFQ69G5FAV");
    let time = Some(Timestamp::from_millis(1_469_918_176_385));
    assert_eq!(carried_time(&key, KeyFormat::Ulid), time);
    assert_eq!(carried_time(&key, KeyFormat::Any), None);
    for bad in
        ["81ARYZ6S41TSV4RRFFQ69G5FAV", "01ARYZ6S41TSV4RRFFQ69G5FA", "01ARYZ6S41TSV4RRFFQ69G5FAI"]
    {
        let refused = canonical(Key::new(bad).unwrap(), KeyFormat::Ulid);
        assert_eq!(refused, Err(KeyFieldError::Format(KeyFormat::Ulid)), "{bad}");
    }
}

fn time_of(
    key: &str,
    first_sent: &[&'static str],
    policy: KeyPolicy,
) -> Result<KeyTime, KeyTimeError> {
    let key = Key::new(key.to_owned()).unwrap();
    let mut headers = HeaderMap::new();
    for value in first_sent {
        headers.append(FIRST_SENT, HeaderValue::from_static(value));
    }
    let now = Timestamp::from_millis(784_111_777_000);
    time(&key, KeyFormat::Any, &headers, policy, now, Duration::from_secs(300))
}

#[test]
fn a_keys_own_time_counts_before_the_one_sent_beside_it() {
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    let uuid7 = "00b69084-f168-7cc3-98c4-dc0c0c07398f";
    let own = time_of(uuid7, &[date], KeyPolicy::Timed).unwrap();
    assert!(own.at.is_some() && !own.first_sent);
    let sent = time_of("order-1", &[date], KeyPolicy::Timed).unwrap();
    let at = Some(Timestamp::from_millis(784_111_777_000));
    assert_eq!(sent, KeyTime { at, first_sent: true });
    assert_eq!(time_of("order-1", &[], KeyPolicy::Optional), Ok(KeyTime::default()));
}

#[test]
fn a_key_from_the_future_or_without_a_wanted_time_is_refused() {
    let ahead = time_of("order-1", &["Sun, 06 Nov 1994 08:54:38 GMT"], KeyPolicy::Optional);
    assert_eq!(ahead, Err(KeyTimeError::Ahead { by: Duration::from_secs(301) }));
    assert!(time_of("order-1", &["Sun, 06 Nov 1994 08:54:37 GMT"], KeyPolicy::Optional).is_ok());
    assert_eq!(time_of("order-1", &[], KeyPolicy::Timed), Err(KeyTimeError::Missing));
    let not = Err(KeyTimeError::NotADate);
    assert_eq!(time_of("order-1", &["1994-11-06"], KeyPolicy::Optional), not);
    let twice = ["Sun, 06 Nov 1994 08:49:37 GMT"; 2];
    assert_eq!(time_of("order-1", &twice, KeyPolicy::Optional), not);
}

proptest! {
    #[test]
    fn no_bytes_panic_and_what_parses_renders_to_the_same_key(
        value in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        for spelling in [KeySpelling::Lenient, KeySpelling::Strict] {
            if let Ok(key) = parse_value(&value, spelling) {
                prop_assert_eq!(parse_value(render(&key).as_bytes(), KeySpelling::Strict), Ok(key));
            }
        }
    }

    #[test]
    fn text_near_the_grammar_does_not_panic_either(value in r#"[ \t"\\;,=:a-c*?1é]{0,24}"#) {
        for spelling in [KeySpelling::Lenient, KeySpelling::Strict] {
            if let Ok(key) = parse_value(value.as_bytes(), spelling) {
                prop_assert_eq!(parse_value(render(&key).as_bytes(), KeySpelling::Strict), Ok(key));
            }
        }
    }

    #[test]
    fn every_key_renders_to_a_field_that_parses_to_it(text in "[ -~]{1,255}") {
        if let Ok(key) = Key::new(text) {
            prop_assert_eq!(parse_value(render(&key).as_bytes(), KeySpelling::Strict), Ok(key));
        }
    }
}
