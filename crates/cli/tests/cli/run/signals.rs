//! Signals are the command's.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::{Place, Wrapper};
use crate::process::until;

#[test]
fn signals_are_sent_on_and_the_commands_own_end_is_awaited_and_kept() {
    for (name, signal) in [
        ("TERM", Signal::TERM),
        ("INT", Signal::INT),
        ("HUP", Signal::HUP),
        ("QUIT", Signal::QUIT),
        ("USR1", Signal::USR1),
        ("USR2", Signal::USR2),
    ] {
        let place = Place::new();
        let script = format!(
            "trap 'echo cleaned; exit 7' {name}; echo x >> $EFFECTS; \
             while :; do sleep 0.01; done"
        );
        let wrapper = place.start(&["--key", "k"], &script);
        place.until_effects(1);
        wrapper.signal(signal);
        let first = wrapper.ended();
        assert_eq!((first.code, &first.out[..]), (Some(7), &b"cleaned\n"[..]), "{name}");
        assert_eq!(place.run(&["--key", "k"], &script), first);
        assert_eq!(place.effects(), 1);
    }
}

#[test]
fn a_command_that_a_signal_ends_has_ended_and_does_not_run_again() {
    let place = Place::new();
    let script = "echo x >> $EFFECTS; exec sleep 600";
    let wrapper = place.start(&["--key", "k"], script);
    place.until_effects(1);
    wrapper.signal(Signal::TERM);
    assert_eq!(wrapper.ended().code, Some(143));
    assert_eq!(place.run(&["--key", "k"], script).code, Some(143));
    assert_eq!(place.effects(), 1);
}

#[test]
fn who_waits_goes_when_told_to_and_ends_nothing_of_what_runs() {
    let place = Place::new();
    let script =
        "echo x >> $EFFECTS; while test -e effects && ! test -e go; do sleep 0.01; done; echo out";
    let first = place.start(&["--key", "k"], script);
    place.until_effects(1);
    let waiting = place.start(&["--key", "k"], script);
    // It holds its signals before it looks for anybody, so that this is its own end.
    waiting.signal(Signal::TERM);
    let code = waiting.ended().code;
    assert!(code.is_none() || code == Some(143), "{code:?}");
    std::fs::write(place.path("go"), "").unwrap();
    let first = first.ended();
    assert_eq!((first.code, &first.out[..]), (Some(0), &b"out\n"[..]));
    assert_eq!(place.effects(), 1);
}

#[test]
fn what_was_to_be_ignored_is_ignored_by_the_command_too() {
    let place = Place::new();
    let script =
        "echo x >> $EFFECTS; while test -e effects && ! test -e go; do sleep 0.01; done; echo out";
    // As `nohup` does.
    let wrapper =
        Wrapper::start(under(&place, "sh", &["-c", "trap '' HUP; exec \"$@\"", "sh"], script));
    place.until_effects(1);
    wrapper.signal(Signal::HUP);
    std::fs::write(place.path("go"), "").unwrap();
    let ended = wrapper.ended();
    assert_eq!((ended.code, &ended.out[..]), (Some(0), &b"out\n"[..]));
}

#[test]
fn a_key_that_is_pressed_reaches_the_command_once() {
    let place = Place::new();
    let script = "trap 'echo pressed >> presses' INT; echo x >> $EFFECTS; \
                  while test -e effects && ! test -e go; do sleep 0.01; done; echo out";
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let name = OsStr::from_bytes(name.as_bytes());
    let theirs = OpenOptions::new().read(true).write(true).open(name).unwrap();
    // Its foreground is the wrapper and what that runs, as in a shell.
    let mut command = under(&place, "setsid", &["--ctty", "--wait"], script);
    command.stdin(Stdio::from(theirs));
    let wrapper = Wrapper::start(command);
    place.until_effects(1);
    let presses = || std::fs::read_to_string(place.path("presses")).unwrap_or_default();
    for count in 1..=3 {
        // Ctrl-C.
        rustix::io::write(&terminal, b"\x03").unwrap();
        until("a press", || (presses().lines().count() == count).then_some(()));
    }
    std::fs::write(place.path("go"), "").unwrap();
    let ended = wrapper.ended();
    assert_eq!((ended.code, &ended.out[..]), (Some(0), &b"out\n"[..]), "{ended}");
    assert_eq!(presses().lines().count(), 3);
}

/// The wrapper of a script, run by another program.
fn under(place: &Place, program: &str, arguments: &[&str], script: &str) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).arg(env!("CARGO_BIN_EXE_onlyonce"));
    command.args(["run", "--key", "k", "--", "sh", "-c", script]).current_dir(place.path("."));
    command.env("XDG_STATE_HOME", place.path(".")).env("EFFECTS", place.path("effects"));
    command.env_remove("ONLYONCE_STORE");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}
