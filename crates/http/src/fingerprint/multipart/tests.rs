//! Parts survive a change of boundary; whatever is unusual is left to be compared by its bytes.

use proptest::prelude::*;

use super::*;

fn form(boundary: &str) -> String {
    format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n\
         --{boundary}\r\ncontent-type: image/png\r\n\
         Content-Disposition: form-data; name=\"f\"; filename=\"x.png\"\r\n\r\n\
         \r\n--not{boundary}\r\n\r\n--{boundary}--\r\n"
    )
}

#[test]
fn the_boundary_does_not_count_and_the_parts_do() {
    let (one, two) = (form("one"), form("tw'o"));
    let first = split(b"multipart/form-data; boundary=one", one.as_bytes()).unwrap();
    assert_eq!(first.len(), 2);
    assert_eq!(first[0].body, b"1");
    assert_eq!(first[1].headers[0].0, b"content-disposition");
    assert_eq!(first[1].headers[1], (b"content-type".to_vec(), &b"image/png"[..]));
    assert_eq!(first[1].body, b"\r\n--notone\r\n");
    let quoted = b"multipart/form-data; charset=utf-8 ; Boundary=\"tw'o\"";
    let second = split(quoted, two.as_bytes()).unwrap();
    assert_eq!(second[0], first[0]);
    assert_eq!(second[1].headers, first[1].headers);
}

#[test]
fn an_unusual_body_is_not_split() {
    let good = form("b");
    let kind = &b"multipart/form-data; boundary=b"[..];
    assert!(split(kind, good.as_bytes()).is_some());
    for content_type in [
        &b"multipart/form-data"[..],
        b"multipart/form-data; boundary=",
        b"multipart/form-data; boundary=\"b",
        b"multipart/form-data; boundary=c",
        b"multipart/form-data; boundary=b; boundary=b",
        b"multipart/form-data; boundary=b; x",
        &[b"multipart/form-data; boundary=", &[b'x'; 71][..]].concat(),
    ] {
        assert_eq!(split(content_type, good.as_bytes()), None);
    }
    for body in [
        String::new(),
        format!("preamble\r\n{good}"),
        format!("{good}epilogue"),
        good.replace("--b--", "--b"),
        good.replace("\r\n", "\n"),
        good.replace("Content-Disposition: form-data; name=\"a\"", "no header"),
        "--b\r\n\r\n--b--".to_owned(),
    ] {
        assert_eq!(split(kind, body.as_bytes()), None, "{body}");
    }
    assert_eq!(split(kind, b"--b--"), Some(vec![]));
}

proptest! {
    #[test]
    fn no_body_panics(body in r"(--b|--|\r\n|: |a|[ -~]){0,30}") {
        let _ = split(b"multipart/mixed; boundary=b", body.as_bytes());
    }

    #[test]
    fn no_content_type_panics(value in r#"[ -~]{0,20};? ?(boundary)?=?["\\b; ]{0,8}"#) {
        let _ = split(value.as_bytes(), b"--b\r\n\r\nx\r\n--b--");
    }
}
