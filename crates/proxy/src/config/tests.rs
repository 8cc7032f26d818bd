//! A mistake is named with file, line and column, and how to mend it.

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
