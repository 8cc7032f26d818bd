//! Signals are the command's.

use std::process::Stdio;

use rustix::process::Signal;

use super::{Place, Wrapper};

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
    let script = "echo x >> $EFFECTS; until test -e go; do sleep 0.01; done; echo out";
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
    let script = "echo x >> $EFFECTS; until test -e go; do sleep 0.01; done; echo out";
    let mut command = place.plain(&[]);
    // As `nohup` does.
    let binary = env!("CARGO_BIN_EXE_onlyonce");
    let nohup = format!("trap '' HUP; exec {binary} run --key k -- sh -c '{script}'");
    command = {
        let mut shell = std::process::Command::new("sh");
        shell.arg("-c").arg(nohup).current_dir(place.path("."));
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        shell
    };
    let wrapper = Wrapper::start(command);
    place.until_effects(1);
    wrapper.signal(Signal::HUP);
    std::fs::write(place.path("go"), "").unwrap();
    let ended = wrapper.ended();
    assert_eq!((ended.code, &ended.out[..]), (Some(0), &b"out\n"[..]));
}
