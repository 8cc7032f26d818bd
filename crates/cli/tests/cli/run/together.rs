//! Many at once.

use super::{IN_PROGRESS, MISMATCH, Place};

/// Case B135. All of them are started in the same moment, and in a store that none has made yet.
#[test]
fn a_hundred_at_once_run_the_command_once_and_all_get_the_same() {
    let place = Place(tempfile::tempdir().unwrap());
    let script = "echo x >> $EFFECTS; printf out; sleep 0.5; printf err >&2; exit 3";
    let all: Vec<_> = (0..100).map(|_| place.start(&["--key", "k"], script)).collect();
    for wrapper in all {
        let ended = wrapper.ended();
        assert_eq!((ended.code, &ended.out[..]), (Some(3), &b"out"[..]), "{ended}");
        assert!(ended.err.ends_with(b"err"), "{ended}");
    }
    assert_eq!(place.effects(), 1);
}

#[test]
fn who_cannot_wait_that_long_is_told_that_it_runs() {
    let place = Place::new();
    let script =
        "echo x >> $EFFECTS; while test -e effects && ! test -e go; do sleep 0.01; done; echo out";
    let first = place.start(&["--key", "k"], script);
    place.until_effects(1);
    for wait in ["0s", "100ms"] {
        let hasty = place.run(&["--key", "k", "--wait", wait], script);
        hasty.refused(IN_PROGRESS, "it runs");
    }
    let moved = ["--key", "k", "--wait", "0s", "--codes-from", "10"];
    place.run(&moved, script).refused(10, "it runs");
    // That it is another command is said at once.
    place.run(&["--key", "k"], "echo other").refused(MISMATCH, "another command");
    let patient = place.start(&["--key", "k"], script);
    std::fs::write(place.path("go"), "").unwrap();
    assert_eq!(first.ended(), patient.ended());
    assert_eq!(place.effects(), 1);
}

#[test]
fn commands_with_other_keys_run_beside_each_other() {
    let place = Place::new();
    // Each waits for the other.
    let script = "echo x >> $EFFECTS; until test $(wc -l < $EFFECTS) = 2; do sleep 0.01; done";
    let both = ["a", "b"].map(|key| place.start(&["--key", key], script));
    for wrapper in both {
        assert_eq!(wrapper.ended().code, Some(0));
    }
}
