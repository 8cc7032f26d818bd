//! Output and exit codes, the first time and again.

use std::process::Stdio;

use super::{Ended, Place, Wrapper, arguments, with_input};
use crate::process::{onlyonce, until};

/// Runs it twice: the second time nothing runs, and everything is the same.
#[track_caller]
fn twice(flags: &[&str], script: &str) -> Ended {
    let place = Place::new();
    let script = format!("echo x >> $EFFECTS; {script}");
    let (first, again) = (place.run(flags, &script), place.run(flags, &script));
    assert_eq!(first, again);
    assert_eq!(place.effects(), 1);
    first
}

#[test]
fn a_repeat_prints_the_same_bytes_to_the_same_streams_and_ends_the_same() {
    let script = "printf 'a\\0\\377\\n'; printf 'b\\r' >&2; printf c; printf 'no line end' >&2";
    let first = twice(&["--key", "k"], script);
    assert_eq!(first.code, Some(0));
    assert_eq!(first.out, b"a\0\xff\nc");
    assert_eq!(first.err, b"b\rno line end");
}

/// Case B134.
#[test]
fn every_exit_code_and_signal_comes_through_and_comes_back() {
    for code in [0, 1, 2, 75, 127, 190, 255] {
        assert_eq!(twice(&["--key", "k"], &format!("exit {code}")).code, Some(code));
    }
    for (signal, code) in [("KILL", 137), ("TERM", 143), ("ABRT", 134), ("SEGV", 139)] {
        let script = format!("ulimit -c 0; kill -{signal} $$; sleep 60");
        assert_eq!(twice(&["--key", "k"], &script).code, Some(code));
    }
}

/// Case B134.
#[test]
fn a_command_that_cannot_be_started_did_not_happen_and_may_be_asked_for_again() {
    let place = Place::new();
    let file = place.path("later");
    let run = || {
        let mut command = place.plain(&["--key", "k", "--"]);
        command.arg(&file);
        Wrapper::start(command).ended()
    };
    for _ in 0..2 {
        run().refused(127, "was not started, so nothing happened");
    }
    std::fs::write(&file, "#!/bin/sh\necho x >> $EFFECTS\n").unwrap();
    run().refused(126, "Permission denied");
    assert_eq!(place.key()["state"], "released");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&file, mode).unwrap();
    for _ in 0..2 {
        assert_eq!(run().code, Some(0));
    }
    assert_eq!(place.effects(), 1);
}

#[test]
fn big_output_streams_through_and_a_repeat_says_how_much_of_it_was_kept() {
    let place = Place::new();
    let script = "echo x >> $EFFECTS; head -c 3000000 /dev/zero; echo end >&2; exit 4";
    let flags = ["--key", "k", "--output-max", "100000"];
    let first = place.run(&flags, script);
    assert_eq!((first.code, first.out.len(), &first.err[..]), (Some(4), 3_000_000, &b"end\n"[..]));
    let again = place.run(&flags, script);
    // What a piece needs beside its bytes counts too.
    assert_eq!(again.out, vec![0; 99_995]);
    assert!(again.said(4).contains("the first 99995 of 3000004 bytes"), "{again}");
    assert_eq!(place.effects(), 1);
}

#[test]
fn all_of_the_output_is_there_however_much_if_it_may_be_kept() {
    let script = "i=0; while [ $i -lt 400 ]; do head -c 1000 /dev/zero; echo $i >&2; \
                  i=$((i + 1)); done";
    let first = twice(&["--key", "k", "--output-max", "16000000"], script);
    assert_eq!(first.out.len(), 400_000);
    assert_eq!(first.err.iter().filter(|it| **it == b'\n').count(), 400);
}

#[test]
fn a_reader_that_goes_away_changes_nothing_of_what_runs_and_is_kept() {
    let place = Place::new();
    let script = "head -c 1000000 /dev/zero; echo x >> $EFFECTS; echo end";
    let mut command = place.command(&["--key", "k"], script);
    let mut child = command.spawn().unwrap();
    // As `| head -1` does, after the first bytes or before.
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let again = place.run(&["--key", "k"], script);
    assert_eq!((again.code, again.out.len()), (Some(0), 1_000_004));
    assert_eq!(place.effects(), 1);
}

#[test]
fn a_disk_that_is_full_for_the_output_is_told_and_the_command_is_recorded() {
    let place = Place::new();
    let mut command = place.command(&["--key", "k"], "echo x >> $EFFECTS; echo out; exit 3");
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    command.stdout(Stdio::from(full));
    let first = Wrapper::start(command).ended();
    assert!(first.said(3).contains("standard output could not be written"), "{first}");
    let again = place.run(&["--key", "k"], "echo x >> $EFFECTS; echo out; exit 3");
    assert_eq!((again.code, &again.out[..]), (Some(3), &b"out\n"[..]));
    assert_eq!(place.effects(), 1);
}

#[test]
fn input_reaches_the_command() {
    let place = Place::new();
    let mut command = place.plain(&["--key", "k", "--"]);
    command.args(arguments(&["tr", "a-z", "A-Z"]));
    let ended = with_input(command, b"one\ntwo");
    assert_eq!((ended.code, &ended.out[..]), (Some(0), &b"ONE\nTWO"[..]));
}

#[test]
fn output_comes_while_the_command_runs() {
    let place = Place::new();
    let mut command = place.command(&["--key", "k"], "printf 'no line end'; cat");
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut seen = [0; 11];
    // It ends only once its input does, and that is after this.
    std::io::Read::read_exact(&mut child.stdout.take().unwrap(), &mut seen).unwrap();
    assert_eq!(&seen, b"no line end");
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_process_that_is_left_behind_does_not_hold_the_end_up() {
    let place = Place::new();
    let script = "echo x >> $EFFECTS; echo out; sleep 600 & echo $! > left";
    let first = place.run(&["--key", "k"], script);
    let left = super::Left::named_in(&place.path("left"));
    assert!(first.said(0).contains("left behind still has its standard output"), "{first}");
    assert_eq!(first.out, b"out\n");
    // Nor the answer.
    let again = place.run(&["--key", "k"], script);
    assert_eq!((again.code, &again.out[..]), (Some(0), &b"out\n"[..]));
    assert_eq!(place.effects(), 1);
    drop(left);
}

#[test]
fn a_replay_is_marked_where_that_is_asked_for() {
    let place = Place::new();
    let flags = ["--key", "k", "--mark-replay"];
    assert_eq!(place.run(&flags, "exit 3").said(3), "");
    let marked = place.run(&flags, "exit 3").said(3);
    assert!(marked.starts_with("onlyonce: this is the output of the run that ended at 20"));
}

#[test]
fn the_command_is_told_its_key_its_fence_and_its_attempt() {
    let place = Place::new();
    let script = "echo $ONLYONCE_KEY $ONLYONCE_ATTEMPT $ONLYONCE_FENCE; exit 75";
    let run = || {
        let ended = place.run(&["--key", "order-7829", "--retry-exit", "75"], script);
        let text = String::from_utf8(ended.out).unwrap();
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        (words[0].clone(), words[1].clone(), words[2].parse::<u64>().unwrap())
    };
    let (first, again) = (run(), run());
    assert_eq!((&*first.0, &*first.1), ("order-7829", "1"));
    assert_eq!((&*again.0, &*again.1), ("order-7829", "2"));
    assert!(first.2 < again.2);
}

#[test]
fn output_that_is_not_kept_any_more_leaves_the_store_while_other_commands_run() {
    let place = Place::new();
    assert_eq!(place.run(&["--key", "k", "--retention", "1ms"], "echo out").code, Some(0));
    assert_eq!(place.key()["state"], "completed");
    let script = "echo x >> $EFFECTS; while test -e effects && ! test -e go; do sleep 0.01; done";
    let wrapper = place.start(&["--key", "long"], script);
    let listed = || onlyonce(["keys", "list", "--json", "--store", &place.store()]).done();
    until("a tombstone", || listed().contains("\"state\":\"tombstone\"").then_some(()));
    std::fs::write(place.path("go"), "").unwrap();
    assert_eq!(wrapper.ended().code, Some(0));
}

#[test]
fn what_a_sweeper_leaves_for_the_next_one_is_counted_listed_and_copied_as_no_key() {
    let place = Place::new();
    let script = "echo x >> $EFFECTS; while test -e effects && ! test -e go; do sleep 0.01; done";
    let wrapper = place.start(&["--key", "long"], script);
    let file = rusqlite::Connection::open(place.path("onlyonce/run.db")).unwrap();
    let count = || file.query_row("SELECT count(*) FROM records", (), |row| row.get::<_, i64>(0));
    until("word of a sweeper", || (count().unwrap() == 2).then_some(()));
    std::fs::write(place.path("go"), "").unwrap();
    assert_eq!(wrapper.ended().code, Some(0));
    assert_eq!(place.key()["state"], "completed");
    let said = onlyonce(["store", "restored", "--at-rest", "--store", &place.store()]).done();
    assert!(said.starts_with("1 records are in "), "{said}");
    let copy = format!("journal:{}", place.path("copy").display());
    let said = onlyonce(["store", "copy", &place.store(), &copy, "--at-rest"]).done();
    assert!(said.contains("1 records of "), "{said}");
    let listed = onlyonce(["keys", "list", "--json", "--store", &copy]).done();
    assert_eq!(listed.lines().count(), 1, "{listed}");
}
