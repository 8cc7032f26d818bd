//! Proxies on machines whose clocks are five minutes wrong, on one store: libfaketime tells each
//! process another time.

use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::caller::order;
use crate::log::{CONFIG, metrics};
use crate::process::Proxy;
use crate::shared::Shared;
use crate::upstream::{Manner, Upstream};

const KEYS: usize = 12;
const EACH: usize = 6;
const MINUTES: [i64; 3] = [-5, 0, 5];

/// What makes a process believe that it is so many minutes later.
fn clock(minutes: i64) -> [(&'static str, String); 3] {
    static LIBRARY: OnceLock<String> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| {
        let mut command = Command::new("faketime");
        let output = command.args(["-f", "+0s", "sh", "-c", "echo \"$LD_PRELOAD\""]).output();
        let output = output.expect("faketime is not installed: cargo xtask install");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    });
    let wrong = format!("{:+}s", minutes * 60);
    // Sleeps and time-outs are as long as ever: only what a clock on the wall says is wrong.
    let steady = ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned());
    [("LD_PRELOAD", library.clone()), ("FAKETIME", wrong), steady]
}

/// A key that carries the present time.
#[allow(clippy::disallowed_methods, reason = "a client of its own has the machine's time")]
fn timed(number: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    format!("{:08x}-{:04x}-7000-8000-{number:012x}", now >> 16, now & 0xffff)
}

fn proxies(store: &Shared, upstream: &Upstream) -> [Proxy; 3] {
    let config = store.folder.write("onlyonce.toml", CONFIG);
    MINUTES.map(|minutes| {
        Proxy::start_in(&store.url, upstream, &["--config", &config], clock(minutes))
    })
}

/// Duplicates at all three run once, wherever they come first; so do keys with a time, if the
/// machines agree on the time.
fn duplicates_run_once(store: &Shared, agree: bool) {
    let upstream = Upstream::open();
    let proxies = proxies(store, &upstream);
    let key = |number: usize| match agree && number.is_multiple_of(2) {
        true => timed(number as u64),
        false => format!("tap-{number}"),
    };
    let keys: Vec<String> = (0..KEYS).map(key).collect();
    thread::scope(|scope| {
        for number in 0..KEYS * EACH {
            let (key, address) = (&keys[number % KEYS], proxies[number % 3].address);
            scope.spawn(move || {
                let answer = order(key).settle(address);
                assert!(["executed", "replayed"].contains(&answer.says()), "{answer:?}");
            });
        }
    });
    for key in &keys {
        assert_eq!(upstream.effects_of(key), 1, "effects of {key}");
    }
    proxies.into_iter().for_each(Proxy::stop);
}

/// While a request is at the upstream, nobody else takes its claim for one that is over.
fn a_claim_that_runs_is_seen_to_run(store: &Shared) {
    let upstream = Upstream::open();
    let proxies = proxies(store, &upstream);
    for (holder, key) in ["slow-behind", "slow", "slow-ahead"].into_iter().enumerate() {
        upstream.manner(Manner::Hold);
        let begun = order(key).begin(proxies[holder].address);
        upstream.began(key);
        thread::scope(|scope| {
            for proxy in &proxies {
                scope.spawn(|| {
                    order(key).send(proxy.address).is_problem(409, "request-in-progress");
                });
            }
        });
        upstream.let_go();
        assert_eq!(begun.answer().unwrap().says(), "executed");
        for proxy in &proxies {
            assert_eq!(order(key).settle(proxy.address).says(), "replayed");
        }
        assert_eq!(upstream.effects_of(key), 1);
    }
    proxies.into_iter().for_each(Proxy::stop);
}

/// How far apart the store's clock and a machine's are is told.
fn how_wrong_a_clock_is_is_told(store: &Shared) {
    let upstream = Upstream::open();
    for (proxy, minutes) in proxies(store, &upstream).into_iter().zip(MINUTES) {
        let page = metrics(&proxy);
        let name = "onlyonce_clock_offset_seconds ";
        let line = page.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let ahead: f64 = line.parse().unwrap();
        assert!((ahead + minutes as f64 * 60.0).abs() < 5.0, "{minutes} min: {ahead}");
        proxy.stop();
    }
}

/// Case B58.
#[test]
fn machines_whose_clocks_are_minutes_apart_agree_on_postgres() {
    let store = Shared::postgres();
    duplicates_run_once(&store, true);
    a_claim_that_runs_is_seen_to_run(&store);
    how_wrong_a_clock_is_is_told(&store);
}

#[test]
fn machines_whose_clocks_are_minutes_apart_agree_on_mariadb() {
    let store = Shared::mariadb();
    duplicates_run_once(&store, true);
    a_claim_that_runs_is_seen_to_run(&store);
}

#[test]
fn machines_whose_clocks_are_minutes_apart_agree_on_redis() {
    let store = Shared::redis();
    duplicates_run_once(&store, true);
    a_claim_that_runs_is_seen_to_run(&store);
}

/// Etcd tells no time: machines whose clocks disagree run nothing twice, and that is all.
#[test]
fn machines_whose_clocks_are_minutes_apart_run_nothing_twice_on_etcd() {
    duplicates_run_once(&Shared::etcd(), false);
    // Another one: whoever starts begins above what the machine that is ahead has written.
    let (upstream, store) = (Upstream::open(), Shared::etcd());
    let proxies = proxies(&store, &upstream);
    upstream.manner(Manner::Hold);
    let begun = order("slow").begin(proxies[0].address);
    upstream.began("slow");
    // The one that is ahead takes the claim for one that is over.
    for _ in 0..3 {
        order("slow").send(proxies[2].address).is_problem(409, "outcome-unknown");
    }
    upstream.let_go();
    begun.answer().unwrap();
    assert_eq!(upstream.effects_of("slow"), 1);
    // A true answer ends the doubt, however late.
    thread::sleep(Duration::from_millis(100));
    assert_eq!(order("slow").settle(proxies[2].address).says(), "replayed");
    proxies.into_iter().for_each(Proxy::stop);
}
