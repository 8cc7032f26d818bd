//! Wrappers that are killed, at random moments and while what they ran lives on.

use std::collections::HashMap;
use std::time::Duration;

use super::{IN_PROGRESS, Left, Place, UNKNOWN};
use crate::process::until;

/// A number in a row that looks random and is the same each time (Knuth, TAOCP 2, 3.3.4).
fn random(seed: u64) -> impl Iterator<Item = u64> {
    let step = |it: &u64| {
        Some(it.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
    };
    std::iter::successors(step(&seed), step).map(|it| it >> 33)
}

/// Case B135. Each key is asked for, killed at a moment of its own, and asked for until it is clear
/// what is known of it.
#[test]
fn killed_at_any_moment_it_never_runs_a_second_time_without_saying_that_nobody_knows() {
    let place = Place::new();
    let script = "echo $ONLYONCE_KEY >> $EFFECTS; echo out";
    let mut held = 0;
    for (number, random) in (0..60).zip(random(7)) {
        let key = format!("key-{number}");
        let flags = ["--key", &key, "--wait", "10s"];
        let wrapper = place.start(&flags, script);
        std::thread::sleep(Duration::from_micros(random % 40_000));
        wrapper.kill();
        let again = place.run(&flags, script);
        let last = place.run(&flags, script);
        match again.code {
            Some(0) => assert_eq!((last.code, &last.out[..]), (Some(0), &b"out\n"[..]), "{last}"),
            Some(UNKNOWN) => {
                held += 1;
                last.refused(UNKNOWN, "nobody knows");
            }
            _ => panic!("{again}"),
        }
    }
    let effects = std::fs::read_to_string(place.path("effects")).unwrap();
    let mut counts: HashMap<&str, u32> = HashMap::new();
    effects.lines().for_each(|key| *counts.entry(key).or_default() += 1);
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    assert!(60 <= counts.len() + held, "{counts:?}, {held} in doubt");
}

#[test]
fn while_what_a_killed_wrapper_ran_lives_nothing_else_runs_under_its_key() {
    let place = Place::new();
    let script = "echo $$ > pid; echo x >> $EFFECTS; exec sleep 600";
    // Also where it may run again: two at the same time are another matter.
    let flags = ["--key", "k", "--on-unknown", "retry", "--wait", "0s"];
    let wrapper = place.start(&flags, script);
    place.until_effects(1);
    let left = Left::named_in(&place.path("pid"));
    wrapper.kill();
    for _ in 0..3 {
        place.run(&flags, script).refused(IN_PROGRESS, "a process that it left behind");
    }
    assert_eq!((place.effects(), &place.key()["state"]), (1, &"in-flight".into()));
    left.end();
    place.run(&["--key", "k"], script).refused(UNKNOWN, "holder-died");
    let again = place.start(&flags, script);
    place.until_effects(2);
    until("its own number", || {
        let text = std::fs::read_to_string(place.path("pid")).ok()?;
        (text.trim() != left.0.to_string()).then_some(())
    });
    Left::named_in(&place.path("pid")).end();
    assert_eq!(again.ended().code, Some(137));
}

#[test]
fn a_wrapper_that_is_killed_while_it_waits_takes_nothing_with_it() {
    let place = Place::new();
    let script =
        "echo x >> $EFFECTS; while test -e effects && ! test -e go; do sleep 0.01; done; echo out";
    let first = place.start(&["--key", "k"], script);
    place.until_effects(1);
    (0..5).map(|_| place.start(&["--key", "k"], script)).for_each(super::Wrapper::kill);
    std::fs::write(place.path("go"), "").unwrap();
    let first = first.ended();
    assert_eq!((first.code, &first.out[..]), (Some(0), &b"out\n"[..]));
    assert_eq!(place.run(&["--key", "k"], script), first);
    assert_eq!(place.effects(), 1);
}
