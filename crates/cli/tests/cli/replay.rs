//! A retry gets the answer that was given, and runs nothing: across stops and kills too.

use crate::caller::order;
use crate::process::{Folder, Proxy};
use crate::upstream::{Manner, Upstream};

#[test]
fn a_retry_gets_the_same_bytes_and_runs_nothing() {
    let (upstream, folder) = (Upstream::open(), Folder::with_store());
    let proxy = Proxy::start(&folder, &upstream);
    let first = order("tap").send(proxy.address);
    let answer = first.ran();
    assert_eq!(first.header("idempotent-replayed"), None);
    for _ in 0..3 {
        let again = order("tap").send(proxy.address);
        assert_eq!(again.replayed(), answer);
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
        assert_eq!(again.header("idempotency-expires"), first.header("idempotency-expires"));
    }
    order("tap").of("kettle").send(proxy.address).is_problem(422, "key-reused");
    assert_eq!(upstream.effects(), 1);
    assert_ne!(order("another-tap").send(proxy.address).ran(), answer);
    assert_eq!(upstream.effects(), 2);
}

#[test]
fn callers_at_once_get_one_answer_also_if_the_first_hangs_up() {
    let (upstream, folder) = (Upstream::open(), Folder::with_store());
    let proxy = Proxy::start(&folder, &upstream);
    upstream.manner(Manner::Hold);
    let first = order("tap").begin(proxy.address);
    upstream.began("tap");
    let others: Vec<_> = (0..8).map(|_| order("tap").begin(proxy.address)).collect();
    drop(first);
    upstream.let_go();
    let answer = order("tap").settle(proxy.address).replayed();
    for other in others {
        assert_eq!(other.answer().unwrap().replayed(), answer);
    }
    assert_eq!(upstream.effects(), 1);
}

#[test]
fn a_retry_after_a_stop_and_after_a_kill_gets_the_same_bytes() {
    let (upstream, folder) = (Upstream::open(), Folder::with_store());
    let proxy = Proxy::start(&folder, &upstream);
    let one = order("one").send(proxy.address).ran();
    proxy.stop();

    let proxy = Proxy::start(&folder, &upstream);
    assert_eq!(order("one").send(proxy.address).replayed(), one);
    let two = order("two").send(proxy.address).ran();
    proxy.kill();

    let proxy = Proxy::start(&folder, &upstream);
    assert_eq!(order("one").send(proxy.address).replayed(), one);
    assert_eq!(order("two").send(proxy.address).replayed(), two);
    assert_eq!(upstream.effects(), 2);
}

/// Cases B12 and B13.
#[test]
fn an_operation_that_ran_during_a_kill_is_unknown_and_does_not_run_again() {
    let (upstream, folder) = (Upstream::open(), Folder::with_store());
    let proxy = Proxy::start(&folder, &upstream);
    upstream.manner(Manner::Hold);
    let begun = order("tap").begin(proxy.address);
    upstream.began("tap");
    proxy.kill();
    assert!(begun.answer().is_err(), "nobody was there to answer");

    upstream.manner(Manner::Answer(0));
    let proxy = Proxy::start(&folder, &upstream);
    for _ in 0..2 {
        order("tap").settle(proxy.address).is_problem(409, "outcome-unknown");
    }
    assert_eq!(upstream.effects(), 1);
}

#[test]
fn callers_with_the_same_key_never_see_each_others_answer() {
    let (upstream, folder) = (Upstream::open(), Folder::with_store());
    let proxy = Proxy::start(&folder, &upstream);
    let callers = ["Bearer anna", "Bearer bert", "Basic YW5uYTpiZXJ0"].map(Some);
    let asked = |proxy: &Proxy, caller: Option<&str>| {
        let order = order("tap");
        let order = caller.map_or(order.clone(), |caller| order.by(caller));
        order.send(proxy.address)
    };
    let answers = callers.iter().chain([&None]).map(|caller| (*caller, asked(&proxy, *caller)));
    let answers: Vec<_> = answers.map(|(caller, answer)| (caller, answer.ran())).collect();
    assert_eq!(upstream.effects(), answers.len());
    let different: std::collections::BTreeSet<_> =
        answers.iter().map(|(_, answer)| answer.body.clone()).collect();
    assert_eq!(different.len(), answers.len());

    proxy.stop();
    let proxy = Proxy::start(&folder, &upstream);
    for (caller, answer) in &answers {
        assert_eq!(&asked(&proxy, *caller).replayed(), answer, "{caller:?}");
    }
    assert_eq!(upstream.effects(), answers.len());
}
