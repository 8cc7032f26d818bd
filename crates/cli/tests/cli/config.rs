//! Mistakes in a configuration are named with their place and the way out, and nothing is started.

use std::net::TcpStream;

use crate::process::{Folder, Proxy, onlyonce};
use crate::upstream::Upstream;

/// A mistake, where it is, and what is said of it.
const MISTAKES: [(&str, &str, &str); 6] = [
    ("upstream = \"http://a\"\n\n[limits]\nwaiterz = 5\n", ":4:1: ", "did you mean `waiters`?"),
    (
        "upstream = \"http://a\"\n[limits]\nwaiters = \"many\"\n",
        ":3:11: ",
        "expected a whole number",
    ),
    ("upstream = \"http://a\"\n[policy]\nwait = \"5 lightyears\"\n", ":3:8: ", "\"200ms\""),
    ("upstream = \"http://a\"\n[policy]\nwait = true\n", ":3:8: ", "a duration such as \"5s\""),
    ("upstream = \"127.0.0.1:3000\"\n", ":1:12: ", "such as http://127.0.0.1:3000"),
    ("listen = \"127.0.0.1:0\"\n", ":1:1: ", "add a line such as upstream ="),
];

#[test]
fn a_mistake_is_named_with_file_line_column_and_the_way_out() {
    let folder = Folder::empty();
    for (text, place, way_out) in MISTAKES {
        let file = folder.write("onlyonce.toml", text);
        let told = onlyonce(["config", "check", &file]).failed(2);
        assert!(told.contains(&format!("{file}{place}")), "{text}\n{told}");
        assert!(told.contains(way_out), "{text}\n{told}");
        assert!(told.contains("nothing was done"), "{told}");

        let store = folder.store();
        let proxy = onlyonce(["proxy", "--config", &file, "--store", &store]);
        assert_eq!(proxy.out, "");
        assert_eq!(proxy.failed(2), told, "the proxy says the same");
        assert!(!folder.journal().exists(), "{text}: a store was made");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let folder = Folder::empty();
    let file = folder.path("gone.toml").display().to_string();
    let store = folder.store();
    for arguments in [
        &["config", "check", &file][..],
        &["proxy", "--config", &file, "--store", &store],
        &["proxy", "--config", &file, "--store", &store, "--upstream", "http://a"],
    ] {
        let told = onlyonce(arguments).failed(2);
        assert!(told.contains(&file), "{told}");
    }
    assert!(!folder.journal().exists());
}

#[test]
fn a_valid_file_is_said_to_be_valid_and_starts_nothing() {
    let folder = Folder::empty();
    let text = "upstream = \"http://127.0.0.1:1\"\n[[route]]\npath = \"/payments\"\n\
                [route.policy]\nkeys = \"required\"\n";
    let file = folder.write("onlyonce.toml", text);
    let said = onlyonce(["config", "check", &file]).done();
    assert!(said.contains(&format!("{file} is valid: 1 ")), "{said}");
}

/// But for its token, which says what to put in its place, and the certificates, which are not
/// there.
#[test]
fn the_file_in_the_documents_is_valid() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/config.md");
    let page = std::fs::read_to_string(page).unwrap();
    let example = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let folder = Folder::empty();
    let example = example.replace("at least sixteen characters", "0123456789abcdef");
    let file = folder.write("onlyonce.toml", &example);
    let told = onlyonce(["config", "check", &file]).failed(2);
    assert!(told.contains("cert.pem"), "{told}");
    let with_files = |line: &&str| line.contains(".pem") || line.starts_with("[tls]");
    let lines: Vec<&str> = example.lines().filter(|line| !with_files(line)).collect();
    let file = folder.write("onlyonce.toml", &lines.join("\n"));
    onlyonce(["config", "check", &file]).done();
}

#[test]
fn a_start_that_fails_before_the_store_makes_none() {
    let folder = Folder::empty();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let text = "upstream = \"http://a\"\n[tls]\ncertificate = \"/none.pem\"\n\
                key = \"/none.pem\"\n";
    let file = folder.write("onlyonce.toml", text);
    for (flags, code, says) in [
        (["--listen", &address], 6, address.as_str()),
        (["--config", &file], 6, "/none.pem"),
        // One MiB more than a number of bytes can say.
        (["--disk-max", "17592186044416"], 2, "--disk-max 17592186044416"),
    ] {
        let start = ["proxy", "--upstream", "http://a", "--store", &folder.store()];
        let told = onlyonce(start.into_iter().chain(flags)).failed(code);
        assert!(told.contains(says) && told.contains("nothing was done"), "{told}");
        assert!(!folder.journal().exists(), "{told}");
    }
}

#[test]
fn flags_go_before_the_file() {
    let (upstream, folder) = (Upstream::open(), Folder::with_store());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let text = format!("listen = \"{}\"\nupstream = \"http://a\"\n", taken.local_addr().unwrap());
    let file = folder.write("onlyonce.toml", &text);
    let proxy = Proxy::start_with(&folder.store(), &upstream, &["--config", &file]);
    crate::caller::order("tap").send(proxy.address).ran();
    assert!(TcpStream::connect(proxy.address).is_ok());
    assert_eq!(upstream.effects(), 1);

    let folder = Folder::with_store();
    let told = onlyonce(["proxy", "--config", &file, "--store", &folder.store()]).failed(6);
    let place = taken.local_addr().unwrap().to_string();
    assert!(told.contains(&place), "{told}");
}
