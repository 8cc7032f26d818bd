//! What is not run, and how that is told.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use super::{EXPIRED, GONE, MISMATCH, NOT_EXECUTED, Place, SEALED, STORE, Wrapper, arguments};
use crate::process::{onlyonce, until};

const PAY: &str = "echo x >> $EFFECTS";

#[test]
fn another_command_under_the_same_key_is_refused() {
    let place = Place::new();
    assert_eq!(place.run(&["--key", "k"], PAY).code, Some(0));
    let says = "used for another command";
    place.run(&["--key", "k"], "echo x >>  $EFFECTS").refused(MISMATCH, says);
    let mut command = place.command(&["--key", "k"], PAY);
    command.arg("more");
    Wrapper::start(command).ended().refused(MISMATCH, says);
    // Another folder may be another shop's.
    let mut command = place.command(&["--key", "k"], PAY);
    command.current_dir("/");
    Wrapper::start(command).ended().refused(MISMATCH, says);
    assert_eq!(place.effects(), 1);
    // Another scope has keys of its own.
    assert_eq!(place.run(&["--key", "k", "--scope", "s"], PAY).code, Some(0));
    assert_eq!(place.effects(), 2);
    // Operators name both as they were named.
    let store = place.store();
    for scope in ["command", "command:s"] {
        let named = ["keys", "get", "--key", "k", "--scope", scope, "--store", &store];
        assert!(onlyonce(named).done().contains("state             completed"));
    }
    let named = ["keys", "get", "--key", "k", "--scope", "command:t", "--store", &store];
    onlyonce(named).failed(1);
}

#[test]
fn folder_and_environment_count_as_far_as_that_is_asked_for() {
    let place = Place::new();
    let run = |flags: &[&str], folder: &str, shop: &str| {
        let mut command = place.command(flags, PAY);
        command.current_dir(folder).env("SHOP", shop);
        Wrapper::start(command).ended()
    };
    let any = ["--key", "any", "--any-dir"];
    assert_eq!(run(&any, "/", "1").code, Some(0));
    assert_eq!(run(&any, "/tmp", "2").code, Some(0));
    assert_eq!(place.effects(), 1);
    let env = ["--key", "env", "--env-key", "SHOP"];
    assert_eq!(run(&env, "/", "1").code, Some(0));
    assert_eq!(run(&env, "/", "1").code, Some(0));
    run(&env, "/", "2").refused(MISMATCH, "environment");
    assert_eq!(place.effects(), 2);
}

/// Case B130.
#[test]
fn all_attempts_have_the_key_that_was_given_and_without_one_nothing_runs() {
    let place = Place::new();
    // A script that calls an API three times, as it fails.
    let script = "for i in 1 2 3; do echo $ONLYONCE_KEY >> $EFFECTS; done; exit 1";
    for _ in 0..2 {
        let flags = ["--key", "gateway-7", "--retry-exit", "1"];
        assert_eq!(place.run(&flags, script).code, Some(1));
    }
    let keys = std::fs::read_to_string(place.path("effects")).unwrap();
    assert_eq!(keys, "gateway-7\n".repeat(6));
    assert_eq!(place.run(&[], script).code, Some(2));
    assert_eq!(place.effects(), 6);
}

#[test]
fn a_command_that_did_not_happen_may_run_again_and_one_that_did_may_not() {
    let place = Place::new();
    let script = "echo x >> $EFFECTS; test $(wc -l < $EFFECTS) -lt 3 && exit 75; echo done";
    let flags = ["--key", "k", "--retry-exit", "69,75"];
    for _ in 0..2 {
        assert_eq!(place.run(&flags, script).code, Some(75));
        assert_eq!(place.key()["state"], "released");
    }
    for _ in 0..2 {
        let ended = place.run(&flags, script);
        assert_eq!((ended.code, &ended.out[..]), (Some(0), &b"done\n"[..]));
    }
    assert_eq!(place.effects(), 3);
}

#[test]
fn who_waited_for_a_command_that_did_not_happen_runs_nothing() {
    let place = Place::new();
    let script =
        "echo x >> $EFFECTS; while test -e effects && ! test -e go; do sleep 0.01; done; exit 75";
    let flags = ["--key", "k", "--retry-exit", "75"];
    let first = place.start(&flags, script);
    place.until_effects(1);
    let waiting: Vec<_> = (0..5).map(|_| place.start(&flags, script)).collect();
    std::fs::write(place.path("go"), "").unwrap();
    assert_eq!(first.ended().code, Some(75));
    for waiter in waiting {
        let ended = waiter.ended();
        // Whoever came only after its end is the next one that asks.
        if ended.code != Some(75) {
            ended.refused(NOT_EXECUTED, "did not happen");
        }
    }
}

#[test]
fn an_answer_that_is_no_longer_kept_is_told_with_its_exit_code() {
    let place = Place::new();
    let flags = ["--key", "k", "--retention", "1ms"];
    assert_eq!(place.run(&flags, "echo x >> $EFFECTS; exit 3").code, Some(3));
    let again = place.run(&flags, "echo x >> $EFFECTS; exit 3");
    again.refused(GONE, "it ran and ended with 3 at 20");
    assert_eq!(place.effects(), 1);
}

#[test]
fn a_store_that_is_made_anew_refuses_keys_from_before() {
    let place = Place(tempfile::tempdir().unwrap());
    let key = "01890a5d-ac96-774b-bcce-b302099a8057";
    let first = place.run(&["--key", key], PAY);
    assert!(first.said(EXPIRED).contains("made a store in sqlite:"), "{first}");
    place.run(&["--key", key], PAY).refused(EXPIRED, "it may have run");
    assert_eq!(place.run(&["--key", "plain"], PAY).code, Some(0));
    assert_eq!(place.effects(), 1);
}

#[test]
fn a_key_that_was_sealed_never_runs() {
    let place = Place::new();
    place.run(&["--key", "k", "--retry-exit", "75"], "exit 75");
    let (id, store) = (place.key()["id"].as_str().unwrap().to_owned(), place.store());
    onlyonce(["keys", "seal", &id, "--why", "cancelled", "--store", &store]).done();
    place.run(&["--key", "k"], PAY).refused(SEALED, "sealed");
    assert_eq!(place.effects(), 0);
}

/// Cases B134 and B135.
#[test]
fn without_its_store_nothing_runs_and_the_code_is_its_own() {
    let place = Place::new();
    let run = |store: &str| {
        let flags = ["--key", "k", "--codes-from", "100", "--store", store];
        Wrapper::start(place.command(&flags, PAY)).ended()
    };
    let missing = format!("sqlite:{}", place.path("none.db").display());
    let says = run(&missing).said(105);
    assert!(says.contains("there is no store here") && says.contains("store init"), "{says}");
    std::fs::write(place.path("other.db"), "something else").unwrap();
    let other = format!("sqlite:{}", place.path("other.db").display());
    assert!(run(&other).said(105).contains("nothing was run"));
    let journal = format!("journal:{}", place.path("journal").display());
    assert!(run(&journal).said(2).contains("for one process at a time"));
    assert_eq!(place.effects(), 0);
}

/// Case B135.
#[test]
fn where_no_lock_can_be_written_nothing_runs() {
    let place = Place::new();
    let locks = place.path("onlyonce/run.db.locks");
    std::fs::write(&locks, "a file in the way").unwrap();
    let ended = place.run(&["--key", "k"], PAY);
    ended.refused(STORE, "nothing was run: the folder for locks");
    assert_eq!(place.effects(), 0);
}

/// Case B135.
#[test]
fn where_the_disk_takes_no_writes_nothing_runs() {
    let place = Place::new();
    let run = |limit: &str| {
        let flags = ["--key", "k", "--", "echo", "out"];
        let binary = env!("CARGO_BIN_EXE_onlyonce");
        let script = format!("trap '' XFSZ; {limit} exec {binary} run \"$@\"");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, "sh"]).args(flags).current_dir(place.path("."));
        shell.env("XDG_STATE_HOME", place.path(".")).env_remove("ONLYONCE_STORE");
        shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Wrapper::start(shell).ended()
    };
    run("ulimit -f 0;").refused(STORE, "nothing was run");
    assert_eq!(onlyonce(["keys", "list", "--json", "--store", &place.store()]).done(), "");
    assert_eq!(run("").out, b"out\n");
}

#[test]
fn without_a_home_it_says_what_is_missing() {
    let place = Place::new();
    let run = |flags: &[&str]| {
        let mut command = place.command(flags, PAY);
        command.env_clear().env("EFFECTS", place.path("effects")).env("PATH", "/usr/bin:/bin");
        Wrapper::start(command).ended()
    };
    let said = run(&["--key", "k"]).said(STORE);
    assert!(said.contains("neither XDG_STATE_HOME nor HOME is set"), "{said}");
    assert!(said.contains("--state DIR"), "{said}");
    let state = place.path("state").display().to_string();
    for _ in 0..2 {
        assert_eq!(run(&["--key", "k", "--state", &state]).code, Some(0));
    }
    assert_eq!(place.effects(), 1);
    // Its folder is for this user alone.
    let mode = std::fs::metadata(place.path("state/run.db")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0);
}

#[test]
fn a_command_line_that_contradicts_itself_is_refused() {
    let place = Place::new();
    for flags in [
        &["--key", ""][..],
        &["--key", "k", "--retry-exit", "3,4", "--unknown-exit", "4"],
        &["--key", "k", "--on-unknown", "probe"],
        &["--key", "k", "--codes-from", "250"],
        &["--key", "k", "--retry-exit", "256"],
    ] {
        assert_eq!(place.run(flags, PAY).code, Some(2), "{flags:?}");
    }
    let mut command = place.plain(&["--key", "k"]);
    command.args(arguments(&["echo", "x"]));
    assert_eq!(Wrapper::start(command).ended().code, Some(2));
    assert_eq!(place.effects(), 0);
}

#[test]
fn an_erased_answer_is_not_given_again_nor_run() {
    let place = Place::new();
    assert_eq!(place.run(&["--key", "k"], PAY).code, Some(0));
    let (id, store) = (place.key()["id"].as_str().unwrap().to_owned(), place.store());
    onlyonce(["keys", "erase", &id, "--why", "asked for", "--store", &store]).done();
    until("that it is gone", || (place.run(&["--key", "k"], PAY).code == Some(GONE)).then_some(()));
    assert_eq!(place.effects(), 1);
}
