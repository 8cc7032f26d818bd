//! What nobody knows: held, run again or asked about, as was asked for.

use super::{Left, Place, STORE, UNKNOWN, Wrapper};
use crate::process::until;

/// Runs until it has had its effect, then dies with its wrapper.
const PAY: &str = "echo $$ > pid; echo x >> $EFFECTS; test -e quick || sleep 600; echo paid";

/// A place where a run of `PAY` is in doubt.
fn in_doubt(flags: &[&str]) -> Place {
    let place = Place::new();
    let wrapper = place.start(flags, PAY);
    place.until_effects(1);
    // What is noted of it comes at its own time.
    until("its number", || (!place.key()["evidence"].is_null()).then_some(()));
    wrapper.kill();
    // The sleep of the shell has the lock too.
    Left::named_in(&place.path("pid")).end();
    end_all(&place);
    std::fs::write(place.path("quick"), "").unwrap();
    place
}

/// Ends what still runs in the place.
fn end_all(place: &Place) {
    let here = place.path(".").canonicalize().unwrap();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let is_here = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|it| it == here);
        let pid = entry.file_name().to_str().and_then(|it| it.parse().ok());
        if let Some(pid) = pid.filter(|_| is_here).and_then(rustix::process::Pid::from_raw) {
            Left(pid).end();
        }
    }
}

#[test]
fn a_killed_wrapper_leaves_doubt_and_nothing_runs_until_somebody_settles_it() {
    let flags = ["--key", "k"];
    let place = in_doubt(&flags);
    for _ in 0..2 {
        let held = place.run(&flags, PAY);
        held.refused(UNKNOWN, "nobody knows whether it happened (holder-died");
        assert!(held.said(UNKNOWN).contains("onlyonce keys resolve"), "{held}");
    }
    assert_eq!(place.effects(), 1);
    let key = place.key();
    assert_eq!(key["state"], "unknown");
    assert!(key["evidence"].as_str().unwrap().starts_with("pid "), "{key}");
    place.resolve(&["--did-not-happen"]);
    for _ in 0..2 {
        assert_eq!(place.run(&flags, PAY).out, b"paid\n");
    }
    assert_eq!(place.effects(), 2);
}

#[test]
fn what_a_person_found_out_is_answered_from_then_on() {
    let flags = ["--key", "k"];
    let place = in_doubt(&flags);
    place.run(&flags, PAY).refused(UNKNOWN, "nobody knows");
    let out = place.path("out");
    std::fs::write(&out, "paid by hand\n").unwrap();
    place.resolve(&["--exited", "4", "--stdout", out.to_str().unwrap()]);
    for _ in 0..2 {
        let ended = place.run(&flags, PAY);
        assert_eq!((ended.code, &ended.out[..]), (Some(4), &b"paid by hand\n"[..]));
    }
    assert_eq!(place.effects(), 1);
}

#[test]
fn a_command_that_may_run_again_does_if_that_is_said() {
    let flags = ["--key", "k", "--on-unknown", "retry"];
    let place = in_doubt(&flags);
    let again = place.run(&flags, PAY);
    assert!(again.said(0).contains("an earlier run of this key is in doubt"), "{again}");
    assert_eq!(again.out, b"paid\n");
    assert_eq!(place.run(&flags, PAY).out, b"paid\n");
    assert_eq!((place.effects(), &place.key()["runs_authorised"]), (2, &1.into()));
}

#[test]
fn a_second_run_that_did_not_happen_leaves_the_doubt_about_the_first() {
    let place = in_doubt(&["--key", "k"]);
    let flags = ["--key", "k", "--on-unknown", "retry", "--retry-exit", "0"];
    let again = place.run(&flags, PAY);
    assert!(again.said(UNKNOWN).contains("it ran and ended with 0"), "{again}");
    assert_eq!(place.key()["state"], "unknown");
}

#[test]
fn a_probe_that_finds_it_answers_with_what_it_found() {
    let probe = "echo $ONLYONCE_KEY is paid; echo asked >> asked";
    let flags = ["--key", "k", "--on-unknown", "probe", "--probe", probe];
    let place = in_doubt(&flags);
    for _ in 0..2 {
        let ended = place.run(&flags, PAY);
        assert_eq!((ended.code, &ended.out[..]), (Some(0), &b"k is paid\n"[..]), "{ended}");
    }
    assert_eq!(std::fs::read_to_string(place.path("asked")).unwrap(), "asked\n");
    assert_eq!(place.effects(), 1);
}

#[test]
fn a_probe_that_finds_nothing_has_it_run_again_and_one_that_cannot_tell_has_not() {
    let probe = "exit $(cat code)";
    let flags = ["--key", "k", "--on-unknown", "probe", "--probe", probe];
    let flags = [&flags[..], &["--probe-absent", "4,5", "--late", "0s"]].concat();
    let place = in_doubt(&flags);
    for code in ["1", "3", "127", "255"] {
        std::fs::write(place.path("code"), code).unwrap();
        let ended = place.run(&flags, PAY);
        let said = ended.said(UNKNOWN);
        assert!(said.contains("the probe did not say") && said.contains("nobody knows"), "{ended}");
        assert!(ended.out.is_empty(), "{ended}");
    }
    assert_eq!(place.effects(), 1);
    std::fs::write(place.path("code"), "5").unwrap();
    // Its "no" counts once clocks that differ can no longer hide anything.
    until("a final no", || {
        let ended = place.run(&flags, PAY);
        (ended.code != Some(UNKNOWN)).then(|| assert_eq!(ended.out, b"paid\n", "{ended}"))
    });
    assert_eq!(place.run(&flags, PAY).out, b"paid\n");
    assert_eq!(place.effects(), 2);
}

#[test]
fn an_exit_code_may_say_that_nobody_can_tell() {
    let place = Place::new();
    let flags = ["--key", "k", "--unknown-exit", "28"];
    let script = "echo x >> $EFFECTS; echo out; exit 28";
    let first = place.run(&flags, script);
    assert!(first.said(UNKNOWN).contains("it ran and ended with 28"), "{first}");
    assert_eq!(first.out, b"out\n");
    place.run(&flags, script).refused(UNKNOWN, "nobody knows");
    assert_eq!(place.effects(), 1);
}

#[test]
fn what_cannot_be_recorded_is_told_with_the_commands_own_end() {
    let place = Place::new();
    // The store is gone when it ends.
    let script = "echo x >> $EFFECTS; mv onlyonce/run.db elsewhere; echo out; exit 3";
    let first = place.run(&["--key", "k"], script);
    assert!(first.said(3).contains("could not be recorded"), "{first}");
    assert_eq!(first.out, b"out\n");
    std::fs::rename(place.path("elsewhere"), place.path("onlyonce/run.db")).unwrap();
    place.run(&["--key", "k"], script).refused(UNKNOWN, "nobody knows");
    assert_eq!(place.effects(), 1);
}

#[test]
fn a_store_of_the_wrong_kind_is_no_doubt() {
    let place = Place::new();
    let mut command = place.command(&["--key", "k"], PAY);
    command.env("ONLYONCE_STORE", format!("sqlite:{}", place.path("none").display()));
    assert!(Wrapper::start(command).ended().said(STORE).contains("nothing was run"));
}
