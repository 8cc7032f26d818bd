//! `--accept-risk`: what a doctor refuses is opened all the same, and told wherever one looks.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use onlyonce_testbed::Redis;
use rustix::process::Signal;

use crate::caller::order;
use crate::log::{CONFIG, metrics, operators};
use crate::process::{Folder, Proxy, onlyonce};
use crate::upstream::Upstream;

#[test]
fn a_risk_that_is_accepted_is_told_in_the_log_the_counts_and_the_document() {
    let server = Redis::start_with(&[("appendfsync", "everysec")]);
    let url = format!("redis://{}", server.address());
    let init = ["store", "init", "--first", "--store", &url];
    onlyonce(init).failed(3);
    onlyonce(init.iter().chain(&["--accept-risk", "everysec"])).done();
    // Each command is told, and a doctor goes by it too.
    assert!(onlyonce(["keys", "list", "--store", &url]).failed(3).contains("appendfsync"));
    onlyonce(["keys", "list", "--store", &url, "--accept-risk", "everysec"]).done();
    assert_eq!(onlyonce(["doctor", "--store", &url]).code, Some(3));
    let told = onlyonce(["doctor", "--json", "--store", &url, "--accept-risk", "everysec"]).done();
    assert!(told.contains("\"risk\":\"everysec\""), "{told}");

    let (upstream, folder) = (Upstream::open(), Folder::empty());
    let config = folder.write("onlyonce.toml", CONFIG);
    let environment = [("ONLYONCE_ACCEPT_RISK", "everysec,single".to_owned())];
    let proxy = Proxy::start_in(&url, &upstream, &["--config", &config], environment);
    let hello = proxy.hello();
    assert!(hello.contains("--accept-risk single: there is no such risk here"), "{hello}");
    assert!(!hello.contains("--accept-risk everysec"), "{hello}");
    let page = metrics(&proxy);
    assert!(page.contains("\nonlyonce_risk_accepted{risk=\"everysec\"} 1\n"), "{page}");
    assert!(!page.contains("risk=\"single\""), "{page}");
    let document = operators(&proxy, "/.well-known/idempotency");
    assert!(document.contains("\"risk\":\"everysec\"") && document.contains("\"routes\""));
    // It is the operators' business, and not that of callers.
    assert!(!document_for_callers(&proxy).contains("everysec"));
    order("tap").send(proxy.address).ran();
    proxy.signal(Signal::TERM);
    let log = proxy.ended().err;
    let warned = log.lines().any(|line| line.contains("WARN") && line.contains("everysec"));
    assert!(warned, "{log}");
}

fn document_for_callers(proxy: &Proxy) -> String {
    let mut stream = TcpStream::connect(proxy.address).unwrap();
    let head = "GET /.well-known/idempotency HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    assert!(page.contains("\"routes\""), "{page}");
    page
}

#[test]
fn what_is_no_risk_and_what_can_never_be_accepted_is_refused_with_all_that_can() {
    for name in ["fire", "transaction_read_only", "secret", ""] {
        let told = onlyonce(["doctor", &format!("--accept-risk={name}")]).failed(2);
        assert!(
            told.contains("everysec, unchecked, failover, single, replica, galera, asynchronous"),
            "{told}"
        );
        assert!(told.contains("can never be"), "{told}");
    }
    // Another setting of the same server is not let in by it.
    let server =
        Redis::start_with(&[("appendfsync", "everysec"), ("maxmemory-policy", "allkeys-lru")]);
    let url = format!("redis://{}", server.address());
    let init = ["store", "init", "--first", "--accept-risk", "everysec", "--store", &url];
    assert!(onlyonce(init).failed(3).contains("maxmemory-policy"));
}
