//! The published vectors of RFC 8785, and what has no canonical form.

use proptest::prelude::*;

use super::*;

fn form(text: &str, numbers: Numbers) -> Option<String> {
    let form = canonical(text.as_bytes(), numbers, &Pointers::default())?;
    Some(String::from_utf8(form).unwrap())
}

fn without(text: &str, pointers: &[&str]) -> Option<String> {
    let exclude = Pointers::parse(pointers.iter().copied()).unwrap();
    let form = canonical(text.as_bytes(), Numbers::AsSpelled, &exclude)?;
    Some(String::from_utf8(form).unwrap())
}

/// RFC 8785 appendix B.
#[test]
fn numbers_are_written_as_the_standard_samples() {
    for (bits, expect) in [
        (0x0000_0000_0000_0000_u64, "0"),
        (0x8000_0000_0000_0000, "0"),
        (0x0000_0000_0000_0001, "5e-324"),
        (0x8000_0000_0000_0001, "-5e-324"),
        (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
        (0xffef_ffff_ffff_ffff, "-1.7976931348623157e+308"),
        (0x4340_0000_0000_0000, "9007199254740992"),
        (0xc340_0000_0000_0000, "-9007199254740992"),
        (0x4430_0000_0000_0000, "295147905179352830000"),
        (0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22"),
        (0x44b5_2d02_c7e1_4af6, "1e+23"),
        (0x44b5_2d02_c7e1_4af7, "1.0000000000000001e+23"),
        (0x444b_1ae4_d6e2_ef4e, "999999999999999700000"),
        (0x444b_1ae4_d6e2_ef4f, "999999999999999900000"),
        (0x444b_1ae4_d6e2_ef50, "1e+21"),
        (0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7"),
        (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
        (0x41b3_de43_5555_5553, "333333333.3333332"),
        (0x41b3_de43_5555_5554, "333333333.33333325"),
        (0x41b3_de43_5555_5555, "333333333.3333333"),
        (0x41b3_de43_5555_5556, "333333333.3333334"),
        (0x41b3_de43_5555_5557, "333333333.33333343"),
        (0xbecb_f647_612f_3696, "-0.0000033333333333333333"),
        (0x4314_3ff3_c1cb_0959, "1424953923781206.2"),
    ] {
        // Every finite double reads back from 17 significant digits.
        let spelled = format!("{:.16e}", f64::from_bits(bits));
        assert_eq!(form(&spelled, Numbers::Canonical).as_deref(), Some(expect), "{bits:016x}");
        assert_eq!(form(expect, Numbers::Canonical).as_deref(), Some(expect), "{bits:016x}");
    }
    assert_eq!(form("1e400", Numbers::Canonical), None);
    assert_eq!(form("1e400", Numbers::AsSpelled).as_deref(), Some("1e400"));
}

/// RFC 8785 section 3.2.2.
#[test]
fn the_sample_document_becomes_its_published_form() {
    let document = r#"{
        "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
        "literals": [null, true, false]
    }"#;
    let expect = concat!(
        r#"{"literals":[null,true,false],"#,
        r#""numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"#,
        r#""string":"€$\u000f\nA'B\"\\\\\"/"}"#
    );
    assert_eq!(form(document, Numbers::Canonical).as_deref(), Some(expect));
    // RFC 8785 section 3.2.4 has it in bytes.
    let published = "\
        7b 22 6c 69 74 65 72 61 6c 73 22 3a 5b 6e 75 6c 6c 2c 74 72 \
        75 65 2c 66 61 6c 73 65 5d 2c 22 6e 75 6d 62 65 72 73 22 3a \
        5b 33 33 33 33 33 33 33 33 33 2e 33 33 33 33 33 33 33 2c 31 \
        65 2b 33 30 2c 34 2e 35 2c 30 2e 30 30 32 2c 31 65 2d 32 37 \
        5d 2c 22 73 74 72 69 6e 67 22 3a 22 e2 82 ac 24 5c 75 30 30 \
        30 66 5c 6e 41 27 42 5c 22 5c 5c 5c 5c 5c 22 2f 22 7d";
    let byte = |hex| u8::from_str_radix(hex, 16).unwrap();
    assert_eq!(expect.as_bytes(), published.split(' ').map(byte).collect::<Vec<_>>());
}

/// RFC 8785 section 3.2.3.
#[test]
fn members_are_sorted_by_utf16_code_units() {
    let document = r#"{
        "\u20ac": "Euro Sign",
        "\r": "Carriage Return",
        "\ufb33": "Hebrew Letter Dalet With Dagesh",
        "1": "One",
        "\ud83d\ude00": "Emoji: Grinning Face",
        "\u0080": "Control",
        "\u00f6": "Latin Small Letter O With Diaeresis"
    }"#;
    let form = form(document, Numbers::Canonical).unwrap();
    let values: Vec<&str> = form.split('"').skip(3).step_by(4).collect();
    let expect = [
        "Carriage Return",
        "One",
        "Control",
        "Latin Small Letter O With Diaeresis",
        "Euro Sign",
        "Emoji: Grinning Face",
        "Hebrew Letter Dalet With Dagesh",
    ];
    assert_eq!(values, expect);
}

#[test]
fn order_blanks_and_escapes_do_not_matter_but_spelled_numbers_do() {
    let base = form(r#"{"a":{"x":1,"y":[1,2]},"b":"A/é"}"#, Numbers::AsSpelled).unwrap();
    for same in [
        " {\t\"b\" : \"\\u0041\\/\\u00e9\" ,\r\n \"a\":{\"y\":[ 1 , 2 ],\"x\":1} } ",
        r#"{"\u0062":"A/é","\u0061":{"x":1,"y":[1,2]}}"#,
    ] {
        assert_eq!(form(same, Numbers::AsSpelled).as_deref(), Some(&*base), "{same}");
    }
    for other in [
        r#"{"a":{"x":1.0,"y":[1,2]},"b":"A/é"}"#,
        r#"{"a":{"x":1,"y":[2,1]},"b":"A/é"}"#,
        r#"{"a":{"x":1,"y":[1,2],"z":null},"b":"A/é"}"#,
        r#"{"a":{"x":"1","y":[1,2]},"b":"A/é"}"#,
    ] {
        assert_ne!(form(other, Numbers::AsSpelled).as_deref(), Some(&*base), "{other}");
    }
    assert_eq!(form("[1.0,1e0,10E-1]", Numbers::Canonical).as_deref(), Some("[1,1,1]"));
    let large = ["100000000000000000001", "100000000000000000002"];
    let [one, two] = large.map(|text| form(text, Numbers::AsSpelled).unwrap());
    assert_ne!(one, two);
}

#[test]
fn what_is_not_plain_json_has_no_form() {
    for text in [
        "",
        " ",
        "{",
        "[",
        "]",
        "{}}",
        "[1,]",
        "[,1]",
        r#"{"a":1,}"#,
        r#"{"a"}"#,
        "{a:1}",
        "01",
        "+1",
        "1.",
        ".5",
        "1e",
        "-",
        "0x1",
        "nul",
        "True",
        "NaN",
        "\"a",
        "\"\t\"",
        r#""\x""#,
        r#""\u12"#,
        r#""\ud800""#,
        r#""\ud800\u0041""#,
        r#""\udc00""#,
        "\u{feff}{}",
        "1 2",
        r#"{"a":1,"a":1}"#,
        r#"{"b":0,"a":1,"\u0061":2}"#,
        "/**/1",
        "'a'",
    ] {
        for numbers in [Numbers::AsSpelled, Numbers::Canonical] {
            assert_eq!(form(text, numbers), None, "{text}");
        }
    }
    assert_eq!(canonical(b"\"\xFF\"", Numbers::AsSpelled, &Pointers::default()), None);
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(form(&nested(DEPTH_MAX), Numbers::AsSpelled).is_some());
    assert_eq!(form(&nested(DEPTH_MAX + 1), Numbers::AsSpelled), None);
    assert_eq!(form(&"[".repeat(1_000_000), Numbers::AsSpelled), None);
    // Siblings are not nested.
    let wide = format!("[{}1]", "[],{},".repeat(500));
    assert!(form(&wide, Numbers::AsSpelled).is_some());
}

/// Case B33.
#[test]
fn excluded_members_do_not_count_and_missing_ones_are_harmless() {
    let exclude = ["/meta/sent_at", "/items/1", "/no/such/member", "/a~1b"];
    let first = r#"{"meta":{"sent_at":1,"v":2},"items":[1,2,3],"a/b":0,"amount":5}"#;
    let retry = r#"{"meta":{"sent_at":9,"v":2},"items":[1,7,3],"a/b":1,"amount":5}"#;
    let form = without(first, &exclude).unwrap();
    assert_eq!(form, r#"{"amount":5,"items":[1,3],"meta":{"v":2}}"#);
    assert_eq!(without(retry, &exclude).as_ref(), Some(&form));
    let changed = retry.replace("\"amount\":5", "\"amount\":6");
    assert_ne!(without(&changed, &exclude), Some(form));
    assert_eq!(without(r#"{"a":1,"b":2}"#, &["/a"]).as_deref(), Some(r#"{"b":2}"#));
    assert_eq!(without(r#"{"b":2,"a":1}"#, &["/a", "/b"]).as_deref(), Some("{}"));
    assert_eq!(without("[1,[2]]", &["/0", "/1/0"]).as_deref(), Some("[[]]"));
    assert_eq!(without(r#"{"a":1,"a":2}"#, &["/a"]), None);
}

proptest! {
    #[test]
    fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let exclude = Pointers::parse(["/a/0", "/b"]).unwrap();
        let _ = canonical(&body, Numbers::Canonical, &exclude);
    }

    #[test]
    fn a_form_is_its_own_form_and_reads_as_the_same_json(
        text in r#"[\[\]{}":,0-9a-c\\u.eE+ -]{0,40}"#,
    ) {
        for numbers in [Numbers::AsSpelled, Numbers::Canonical] {
            if let Some(form) = form(&text, numbers) {
                let again = super::tests::form(&form, numbers);
                prop_assert_eq!(again.as_ref(), Some(&form));
                let (a, b): (Result<serde_json::Value, _>, Result<serde_json::Value, _>) =
                    (serde_json::from_str(&text), serde_json::from_str(&form));
                // Numbers beyond a double are JSON all the same.
                if let (Ok(a), Ok(b)) = (a, b) {
                    prop_assert_eq!(a, b);
                }
            }
        }
    }
}
