//! A mistake is named with file, line and column, and how to mend it.

use onlyonce::core::limits::FOREVER;
use onlyonce::core::{Always, Receiver};

use super::*;

fn read(text: &str) -> Result<Config, String> {
    Config::parse("onlyonce.toml", text, None).map_err(|error| error.to_string())
}

#[test]
fn nothing_but_the_upstream_is_needed() {
    let config = read("upstream = \"http://127.0.0.1:3000\"").unwrap();
    assert_eq!(config.listen, LISTEN);
    assert_eq!(config.upstream, target("http://127.0.0.1:3000").unwrap());
    assert_eq!(config.limits, Limits::default());
    let flag = Config::parse("onlyonce.toml", "", Some("https://shop.example")).unwrap();
    assert!(flag.upstream.tls);
    assert!(Config::for_upstream("h2c://shop:80").unwrap().upstream.http2);
}

#[test]
fn every_mistake_names_its_place_and_the_way_out() {
    for (text, place, says) in [
        ("listen = \"127.0.0.1:1\"", ":1:1", "there is no upstream"),
        ("upstraem = \"http://a\"", ":1:1", "did you mean `upstream`?"),
        ("upstream = \"http://a\"\n[limits]\nwaiterz = 5", ":3:1", "did you mean `waiters`?"),
        ("listen = \"localhost:80\"", ":1:10", "IP address with a port"),
        ("upstream = \"http://a\"\n[limits]\nwaiters = \"many\"", ":3:11", "whole number"),
        ("upstream = \"http://a\"\n[limits]\nstreams = -1", ":3:11", "whole number"),
        ("upstream = \"http://a\"\n[policy]\nmethods = \"POST\"", ":3:11", "values in [ ]"),
        ("upstream = \"http://a\"\n[policy]\nset_cookie = \"yes\"", ":3:14", "true or false"),
        ("upstream = \"http://a\"\n[route]\npath = \"/a\"", ":2:1", "headed by [[ ]]"),
        ("upstream = \"http://a\"\npolicy = 5", ":2:10", "a table"),
        ("upstream = \"127.0.0.1:3000\"", ":1:12", "must begin with http://"),
        ("upstream = \"http://a/api\"", ":1:12", "has a path"),
        ("upstream = \"http://me@a\"", ":1:12", "user name"),
        ("upstream = \"http://a\"\n[policy]\nwait = \"5 lightyears\"", ":3:8", "no duration"),
        ("upstream = \"http://a\"\n[policy]\nbody_max = \"5 XB\"", ":3:12", "no size"),
        ("upstream = \"http://a\"\n[policy]\nmethods = [\"post\"]", ":3:11", "\"POST\""),
        ("upstream = \"http://a\"\n[policy]\nmethods = [\"GET\"]", ":2:1", "GET cannot be"),
        ("upstream = \"http://a\"\n[policy]\nkeys = \"always\"", ":3:8", "\"required\""),
        ("upstream = \"http://a\"\n[policy]\nscope = \"me\"", ":3:9", "cookie:NAME"),
        ("upstream = \"http://a\"\n[policy]\nscope = \"jwt\"", ":2:1", "[policy.jwt]"),
        ("upstream = \"http://a\"\n[policy]\nrelease = [99]", ":2:1", "99 is no HTTP status"),
        ("upstream = \"http://a\"\n[policy]\nretention = \"31d\"", ":2:1", "remember"),
        ("upstream = \"http://a\"\n[[route]]\npath = \"orders\"", ":3:8", "begins with /"),
        (
            "upstream = \"http://a\"\n[admin]\nlisten = \"0.0.0.0:9\"\n\
             token = \"0123456789abcdef\"\n",
            ":2:1",
            "127.0.0.1:9",
        ),
        (
            "upstream = \"http://a\"\n[admin]\nlisten = \"127.0.0.1:9\"\ntoken = \"short\"",
            ":2:1",
            "at least 16",
        ),
        ("upstream = \"http://a\"\n[limits]\nhead_bytes = 100", ":3:14", "\"8KiB\""),
        ("upstream = \"http://a\"\n[limits]\nhead_fields = 0", ":3:15", "from 10"),
        (
            "upstream = \"http://a\"\n[limits]\nconnections = 9223372036854775807",
            ":3:15",
            "to 1000000",
        ),
        ("upstream = \"http://a\"\n[limits]\nconnections = 0", ":3:15", "from 1 "),
        ("upstream = \"http://a\"\n[limits]\nstreams = 0", ":3:11", "from 1 "),
        ("upstream = \"http://a\"\n[limits]\nwaiters = 99999999", ":3:11", "to 1000000"),
        ("upstream = \"http://a\"\n[limits]\nanswer_time = \"0s\"", ":3:15", "\"10ms\""),
        ("upstream = \"http://a\"\n[limits]\nhead_time = \"0s\"", ":3:13", "\"10ms\""),
        ("upstream = \"http://a\"\n[limits]\ndrain_time = \"2d\"", ":3:14", "\"1d\""),
        ("upstream = \"http://a\"\n[policy]\nremember = \"99999d\"", ":3:12", "36500d"),
        (
            "upstream = \"http://a\"\n[[route]]\npath = \"/a\"\n[[route]]\npath = \"/a/\"",
            ":5:8",
            "already",
        ),
        (
            "listen = \"127.0.0.1:9\"\nupstream = \"http://a\"\n[admin]\n\
             listen = \"127.0.0.1:9\"\ntoken = \"0123456789abcdef\"",
            ":3:1",
            "another port",
        ),
        ("upstream = \"http://a", ":1:", "string"),
    ] {
        let error = read(text).expect_err(text);
        assert!(error.starts_with(&format!("onlyonce.toml{place}")), "{text}\n{error}");
        assert!(error.contains(says), "{text}\n{error}");
    }
}

#[test]
fn a_mistake_is_shown_in_its_line() {
    let error = read("upstream = \"http://a\"\n[policy]\nwait = \"soon\"\n").unwrap_err();
    let expect = "onlyonce.toml:3:8: \"soon\" is no duration; write one such as \"200ms\", \
                  \"5s\", \"24h\"\n  |\n3 | wait = \"soon\"\n  |        ^^^^^^";
    assert_eq!(error, expect);
}

#[test]
fn a_route_has_the_policy_around_it_but_for_what_it_says() {
    let config = read(
        "upstream = \"http://a\"\n[policy]\nwait = \"1s\"\nset_cookie = true\n\
         [[route]]\npath = \"/a\"\n[[route]]\npath = \"/a/b\"\n[route.policy]\nwait = \"2s\"\n",
    )
    .unwrap();
    let [deep, shallow] = &config.routes[..] else { panic!() };
    assert_eq!((deep.path.as_str(), deep.policy.wait), ("/a/b", Duration::from_secs(2)));
    assert!(deep.policy.set_cookie);
    assert_eq!(shallow.policy.wait, Duration::from_secs(1));
    assert!(deep.fits("/a/b") && deep.fits("/a/b/c") && !deep.fits("/a/bc"));
    assert!(shallow.fits("/a") && !shallow.fits("/"));
}

#[test]
fn a_stop_that_makes_unknown_outcomes_is_warned_of() {
    let warned = |lines: &str| {
        let config = read(&format!("upstream = \"http://a\"\n[limits]\n{lines}")).unwrap();
        config.warnings().iter().any(|it| it.contains("drain_time"))
    };
    assert!(!warned(""));
    assert!(!warned("drain_time = \"5s\"\nanswer_time = \"5s\""));
    assert!(warned("drain_time = \"30s\""));
    assert!(warned("answer_time = \"66s\""));
}

#[test]
fn files_that_cannot_be_used_are_found_without_starting() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("empty.pem"), "").unwrap();
    let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    std::fs::write(at("junk.pem"), junk).unwrap();
    let of = |names: [&str; 2]| {
        let [certificate, key] = names.map(at);
        format!("upstream = \"http://a\"\n[tls]\ncertificate = {certificate:?}\nkey = {key:?}")
    };
    let trust =
        |name: &str| format!("upstream = \"https://localhost\"\nupstream_trust = {:?}", at(name));
    for (text, says) in [
        (of(["none.pem", "none.pem"]), "none.pem"),
        (of(["empty.pem", "none.pem"]), "no certificate in this file"),
        (of(["junk.pem", "none.pem"]), "none.pem"),
        (trust("none.pem"), "none.pem"),
        (trust("junk.pem"), "none of the certificates"),
    ] {
        let error = crate::Ports::rehearse(&read(&text).unwrap()).unwrap_err().to_string();
        assert!(error.contains(says), "{text}\n{error}");
    }
    crate::Ports::rehearse(&read("upstream = \"http://a\"").unwrap()).unwrap();
}

/// The page with all settings.
fn page() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/config.md");
    std::fs::read_to_string(path).unwrap()
}

/// Name and default of each row under a mark in the page.
fn rows(page: &str, mark: &str) -> Vec<(String, String)> {
    let (_, below) = page.split_once(mark).unwrap();
    let below = below.split("\n## ").next().unwrap();
    let rows = below.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.map(|row| {
        let (name, rest) = row.split_once("` | `").unwrap();
        (name.to_owned(), rest.split_once("` |").unwrap().0.to_owned())
    });
    cells.collect()
}

/// What a table of the file would take, as its refusal of an unknown setting says.
fn settings(table: &str) -> Vec<String> {
    let text = format!("upstream = \"http://a\"\n[{table}]\nzzz = 1");
    let error = toml::from_str::<file::File>(&text).err().unwrap().message().to_owned();
    error.split('`').skip(3).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_page_names_every_setting_with_its_default() {
    let page = page();
    let standard = format!("{:?}", read("upstream = \"http://a\"").unwrap());
    for (table, mark) in [("limits", "<!-- limits"), ("policy", "<!-- policy")] {
        let rows = rows(&page, mark);
        let mut named: Vec<_> = rows.iter().map(|(name, _)| name.clone()).collect();
        let mut taken = settings(table);
        taken.retain(|name| !["jwt", "probe", "receiver"].contains(&name.as_str()));
        named.sort();
        taken.sort();
        assert_eq!(named, taken, "[{table}]");
        for (name, default) in rows {
            let text = format!("upstream = \"http://a\"\n[{table}]\n{name} = {default}");
            let config = read(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(format!("{config:?}"), standard, "{name} = {default}");
        }
    }
}

#[test]
fn the_example_of_the_page_is_a_configuration() {
    let page = page();
    let example = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let config = read(example).unwrap();
    assert_eq!((config.routes.len(), config.limits), (1, Limits::default()));
}

#[test]
fn a_probe_is_read_and_one_that_proves_nothing_is_refused() {
    let with = |lines: &str| {
        read(&format!(
            "upstream = \"http://a\"\n[policy]\non_unknown = \"probe\"\n[policy.probe]\n{lines}"
        ))
    };
    let all = "path = \"/by-key/{key}\"\nabsent_status = 404\nsettle = \"10s\"\nlate = \"1m\"\n";
    let config = with(&format!("{all}absent_member = \"/error = none\"")).unwrap();
    assert!(config.policy.probe.is_some());
    assert!(with(&format!("{all}absent_header = \"x-lookup: none\"")).is_ok());
    for (lines, says) in [
        (all.to_owned(), "a status alone"),
        (format!("{all}absent_member = \"/error\""), "write it as"),
        (format!("{all}absent_member = \"error = none\""), "no JSON pointer"),
        (all.replace("404", "200") + "absent_header = \"a: b\"", "cannot mean"),
        (all.replace("/by", "by") + "absent_header = \"a: b\"", "no path"),
    ] {
        let error = with(&lines).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
    let error = with("").unwrap_err();
    assert!(error.contains("path"), "{error}");
    // With its bounds where they belong, and only there.
    let split = all.replace("settle = \"10s\"\nlate = \"1m\"\n", "absent_header = \"a: b\"\n");
    let receiver = "[policy.receiver]\nsettle = \"10s\"\nlate = \"1m\"\n";
    let apart = with(&format!("{split}{receiver}")).unwrap();
    let header = with(&format!("{all}absent_header = \"a: b\"")).unwrap();
    assert_eq!(apart.policy.record, header.policy.record);
    let twice = with(&format!("{all}absent_header = \"a: b\"\n{receiver}")).unwrap_err();
    assert!(twice.contains("say them once"), "{twice}");
    let none = with(&split).unwrap_err();
    assert!(none.contains("settle and late"), "{none}");
}

/// A policy that says this, and its warnings.
fn with_policy(lines: &str) -> Result<Config, String> {
    read(&format!("upstream = \"http://a\"\n[policy]\n{lines}"))
}

#[test]
fn what_a_receiver_never_allows_is_a_mistake_with_its_place() {
    let day = "[policy.receiver]\nkeyed = \"24h\"\n";
    for (lines, says) in [
        ("on_unknown = \"retry\"", "never makes a second run harmless"),
        ("on_unknown = \"probe\"", "settle and late"),
        (
            "on_unknown = \"retry\"\n[policy.receiver]\nsettle = \"1s\"\nlate = \"1s\"",
            "never makes a second run harmless",
        ),
        ("on_unknown = \"auto\"\n[policy.receiver]\nkeyed = \"30s\"", "would never count"),
        ("[policy.receiver]\nsettle = \"30s\"", "late too"),
        ("on_unknown = \"auto\"\n[policy.receiver]\nsettle = \"1s\"\nlate = \"1s\"", "where"),
    ] {
        let error = with_policy(lines).unwrap_err();
        assert!(error.starts_with("onlyonce.toml:2:1") && error.contains(says), "{error}");
    }
    let error = with_policy("[policy.receiver]\nalways = \"sealable\"").unwrap_err();
    assert!(
        error.starts_with("onlyonce.toml:4:10") && error.contains("\"unique-name\""),
        "{error}"
    );
    let policy = format!("on_unknown = \"retry\"\n{day}");
    let route = "[[route]]\npath = \"/a\"\n[route.policy.receiver]\n";
    let error = with_policy(&format!("{policy}{route}")).unwrap_err();
    assert!(error.starts_with("onlyonce.toml:6:1"), "a route's takes nothing over: {error}");
    let config = with_policy(&format!("{policy}{route}always = \"fenced\"")).unwrap();
    assert_eq!(config.routes[0].policy.record.receiver, Receiver::always(Always::Fenced));
    assert_eq!(config.policy.record.receiver, Receiver::keyed(Duration::from_secs(86_400)));
}

#[test]
fn a_receiver_that_forgets_too_early_is_warned_of() {
    let warned = |lines: &str| with_policy(lines).unwrap().warnings().concat();
    let short = "[policy.receiver]\nkeyed = \"15m\"";
    let said = warned(&format!("on_unknown = \"retry\"\nretention = \"2h\"\n{short}"));
    assert!(said.contains("forgets a key after 900s") && said.contains("7200s"), "{said}");
    let fine = warned(&format!("on_unknown = \"retry\"\nretention = \"15m\"\n{short}"));
    assert!(!fine.contains("forgets"), "{fine}");
    assert!(warned("on_unknown = \"auto\"").contains("no receiver is declared"));
    assert!(warned(short).contains("nothing is made of what it offers"));
}

#[test]
fn a_key_may_be_remembered_for_ever_and_the_sweeper_goes_by_that() {
    let config = with_policy("[[route]]\npath = \"/a\"\n[route.policy]\nremember = \"forever\"");
    let config = config.unwrap();
    assert_eq!(config.routes[0].policy.record.remember, FOREVER);
    assert_eq!(config.sweeping().remember, FOREVER);
    let error = with_policy("retention = \"forever\"").unwrap_err();
    assert!(error.starts_with("onlyonce.toml:3:13"), "{error}");
}

#[test]
fn all_routes_of_a_store_remember_for_as_long_as_the_one_that_does_so_longest() {
    let days = |days: u64| Duration::from_secs(days * 86_400);
    for (own, route, longest) in [(2, 60, 60), (60, 2, 60), (2, 3, 3)] {
        let lines = format!(
            "remember = \"{own}d\"\n[[route]]\npath = \"/a\"\n[route.policy]\n\
             remember = \"{route}d\"\n[[route]]\npath = \"/b\""
        );
        let config = with_policy(&lines).unwrap();
        assert_eq!(config.sweeping().remember, days(longest));
        let routes = config.routes.iter().map(|route| &route.policy);
        for policy in routes.chain([&config.policy]) {
            assert_eq!(policy.record.remember, days(longest));
        }
    }
}
