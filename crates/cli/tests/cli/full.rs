//! A full disk: nothing new is begun, and what ends within its lease is still recorded.

use std::net::SocketAddr;

use crate::caller::{Answer, Kept, order};
use crate::process::{Folder, Proxy};
use crate::upstream::{Manner, Upstream};

/// The largest answers that fill the store, and how many fill it at most.
const LARGE: usize = 15 << 20;
const FILLS_MAX: usize = 4_000;

/// Asks for new operations until one is refused, and returns its key and its answer. `answers` has
/// what others were answered and can be asked for again.
fn fill(
    proxy: SocketAddr,
    upstream: &Upstream,
    answers: &mut Vec<(String, Kept)>,
) -> (String, Answer) {
    let mut size = LARGE;
    for number in 0..FILLS_MAX {
        let key = format!("fill-{number}");
        upstream.manner(Manner::Answer(size));
        let answer = order(&key).send(proxy);
        if answer.status != 201 {
            return (key, answer);
        }
        let ran = answer.ran();
        let again = order(&key).send(proxy);
        if again.says() == "gone" {
            // There is no room for answers of this size.
            again.is_problem(410, "reply-not-kept");
            size /= 2;
            continue;
        }
        assert!(again.replayed() == ran, "{key}: a replay differs");
        answers.push((key, ran));
    }
    panic!("the store was never full");
}

/// Cases B79 and B145.
#[test]
fn on_a_full_disk_new_operations_are_refused_and_a_running_one_is_recorded() {
    let (upstream, folder) = (Upstream::open(), Folder::with_store());
    // Less than a segment: there is the one that every store begins with, and no other.
    let proxy = Proxy::start_with(&folder.store(), &upstream, &["--disk-max", "1"]);
    upstream.manner(Manner::Hold);
    let begun = order("running").begin(proxy.address);
    upstream.began("running");

    let mut answers = Vec::new();
    let (refused, answer) = fill(proxy.address, &upstream, &mut answers);
    answer.is_problem(503, "store-unavailable");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    assert_eq!(upstream.effects_of(&refused), 0, "it was refused before anything was sent");
    let files = std::fs::read_dir(folder.journal()).unwrap().map(|file| file.unwrap().path());
    let segments = files.filter(|path| path.extension().is_some_and(|it| it == "log"));
    assert_eq!(segments.count(), 1, "it took more of the disk");

    upstream.let_go();
    let ran = begun.answer().unwrap().ran();
    answers.push(("running".to_owned(), ran));
    upstream.manner(Manner::Answer(0));
    let replay_all = |proxy: &Proxy| {
        for (key, ran) in &answers {
            assert!(&order(key).send(proxy.address).replayed() == ran, "{key}: a replay differs");
            assert_eq!(upstream.effects_of(key), 1, "{key}");
        }
    };
    replay_all(&proxy);
    proxy.stop();

    let proxy = Proxy::start(&folder, &upstream);
    replay_all(&proxy);
    order(&refused).send(proxy.address).ran();
    order(&refused).send(proxy.address).replayed();
    assert_eq!(upstream.effects_of(&refused), 1);
}
