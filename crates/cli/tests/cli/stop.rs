//! Stopping: what runs ends and is recorded, and nothing new begins.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};

use rustix::process::Signal;

use crate::caller::order;
use crate::process::{Folder, Proxy, until};
use crate::upstream::{Manner, Upstream};

/// Waits until nobody can connect any more.
fn closed(address: SocketAddr) {
    until("a closed port", || {
        let refused = TcpStream::connect(address).err()?;
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        Some(())
    });
}

#[test]
fn an_operation_that_runs_when_a_stop_is_asked_for_ends_and_is_recorded() {
    for signal in [Signal::TERM, Signal::INT] {
        let (upstream, folder) = (Upstream::open(), Folder::with_store());
        let proxy = Proxy::start(&folder, &upstream);
        upstream.manner(Manner::Hold);
        let begun = order("tap").begin(proxy.address);
        upstream.began("tap");
        proxy.signal(signal);
        closed(proxy.address);

        upstream.let_go();
        let answer = begun.answer().unwrap().ran();
        proxy.ended().done();
        let proxy = Proxy::start(&folder, &upstream);
        assert_eq!(order("tap").send(proxy.address).replayed(), answer);
        assert_eq!(upstream.effects(), 1);
    }
}

#[test]
fn an_operation_whose_caller_has_gone_is_recorded_before_a_stop_too() {
    let (upstream, folder) = (Upstream::open(), Folder::with_store());
    let proxy = Proxy::start(&folder, &upstream);
    upstream.manner(Manner::Hold);
    let begun = order("tap").begin(proxy.address);
    upstream.began("tap");
    drop(begun);
    proxy.signal(Signal::TERM);
    closed(proxy.address);
    upstream.let_go();
    proxy.ended().done();

    let proxy = Proxy::start(&folder, &upstream);
    order("tap").send(proxy.address).replayed();
    assert_eq!(upstream.effects(), 1);
}

#[test]
fn a_second_signal_ends_at_once_and_what_ran_is_unknown() {
    let (upstream, folder) = (Upstream::open(), Folder::with_store());
    let proxy = Proxy::start(&folder, &upstream);
    upstream.manner(Manner::Hold);
    let begun = order("tap").begin(proxy.address);
    upstream.began("tap");
    proxy.signal(Signal::TERM);
    closed(proxy.address);
    proxy.signal(Signal::TERM);
    let told = proxy.ended().failed(5);
    assert!(told.contains("second signal"), "{told}");
    assert!(begun.answer().is_err(), "there was no answer to give");

    let proxy = Proxy::start(&folder, &upstream);
    order("tap").settle(proxy.address).is_problem(409, "outcome-unknown");
    assert_eq!(upstream.effects(), 1);
}

#[test]
fn an_operation_that_does_not_end_in_the_time_for_it_is_told() {
    let (upstream, folder) = (Upstream::open(), Folder::with_store());
    let config = folder.write("onlyonce.toml", "[limits]\ndrain_time = \"50ms\"\n");
    let proxy = Proxy::start_with(&folder.store(), &upstream, &["--config", &config]);
    upstream.manner(Manner::Hold);
    let begun = order("tap").begin(proxy.address);
    upstream.began("tap");
    proxy.signal(Signal::TERM);
    let told = proxy.ended().failed(5);
    assert!(told.contains("1 operations had not ended in time"), "{told}");
    assert!(begun.answer().is_err(), "there was no answer to give");

    let proxy = Proxy::start(&folder, &upstream);
    order("tap").settle(proxy.address).is_problem(409, "outcome-unknown");
    assert_eq!(upstream.effects(), 1);
}

/// As many orders as callers at once, each with the shop at work for it.
fn twenty(proxy: &Proxy, upstream: &Upstream) -> Vec<(String, crate::caller::Begun)> {
    upstream.manner(Manner::Hold);
    let keys = (0..20).map(|number| format!("tap-{number}"));
    let begun: Vec<_> = keys.map(|key| (key.clone(), order(&key).begin(proxy.address))).collect();
    begun.iter().for_each(|(key, _)| upstream.began(key));
    begun
}

/// Case B24: a roll-out with time enough cuts nobody off: all that runs ends and is recorded, and
/// nothing new is taken.
#[test]
fn a_stop_with_time_enough_records_everything_that_runs() {
    let (upstream, folder) = (Upstream::open(), Folder::with_store());
    let proxy = Proxy::start(&folder, &upstream);
    let begun = twenty(&proxy, &upstream);
    proxy.signal(Signal::TERM);
    closed(proxy.address);
    begun.iter().for_each(|_| upstream.let_go());
    let answers: Vec<_> =
        begun.into_iter().map(|(key, begun)| (key, begun.answer().unwrap().ran())).collect();
    proxy.ended().done();

    let proxy = Proxy::start(&folder, &upstream);
    for (key, answer) in answers {
        assert_eq!(order(&key).send(proxy.address).replayed(), answer);
        assert_eq!(upstream.effects_of(&key), 1);
    }
}

/// Case B24: one that is killed before it has ended leaves doubt, told at once by the next, and
/// never a second run.
#[test]
fn a_stop_that_ends_in_a_kill_leaves_doubt_and_runs_nothing_twice() {
    let (upstream, folder) = (Upstream::open(), Folder::with_store());
    let proxy = Proxy::start(&folder, &upstream);
    let begun = twenty(&proxy, &upstream);
    proxy.signal(Signal::TERM);
    closed(proxy.address);
    proxy.kill();
    upstream.manner(Manner::Answer(0));
    let proxy = Proxy::start(&folder, &upstream);
    for (key, begun) in begun {
        assert!(begun.answer().is_err(), "there was no answer to give");
        for _ in 0..2 {
            order(&key).settle(proxy.address).is_problem(409, "outcome-unknown");
        }
        assert_eq!(upstream.effects_of(&key), 1);
    }
}
