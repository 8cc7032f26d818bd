//! What names a process, and the proof that one is gone.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use onlyonce::core::Holder;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// What names this process on this host until the next boot. Parts that cannot be read stay zero
/// and prove nothing.
pub fn this_process() -> Holder {
    let text = |path| fs::read_to_string(path).unwrap_or_default();
    let mut host = [0; 8];
    copy_hex(text("/etc/machine-id").trim(), &mut host);
    let mut boot = [0; 16];
    copy_hex(&text("/proc/sys/kernel/random/boot_id").trim().replace('-', ""), &mut boot);
    let started = Stat::read(&text("/proc/self/stat")).map_or(0, |stat| stat.started);
    let (pid, pid_namespace) = (std::process::id(), namespace("pid").unwrap_or(0));
    let time_namespace = match namespace("time") {
        Ok(number) => number,
        // A kernel without them (before Linux 5.6) counts one time for all processes.
        Err(error) if error.kind() == ErrorKind::NotFound && pid_namespace != 0 => ONE_TIME,
        Err(_) => 0,
    };
    Holder { host, boot, pid_namespace, pid, started, time_namespace }
}

/// The time namespace of all processes where there are none. The kernel's numbers are larger.
const ONE_TIME: u32 = 1;

/// The number of this process's namespace of a kind (namespaces(7)); zero if it is not understood.
fn namespace(kind: &str) -> io::Result<u32> {
    // "pid:[4026531836]"
    let link = fs::read_link(format!("/proc/self/ns/{kind}"))?;
    let number = link.to_string_lossy();
    Ok(number.trim_matches(|it: char| !it.is_ascii_digit()).parse().unwrap_or(0))
}

/// Whether `other` is provably gone, as `me` can tell. A process that is stopped is not.
///
/// Within one boot the number of a pid namespace is given to another only after all processes of
/// the first have ended, so that one with the same number proves as much.
pub(crate) fn is_gone(me: &Holder, other: &Holder) -> bool {
    let is_known = me.boot != [0; 16] && me.pid_namespace != 0;
    let same =
        (me.host, me.boot, me.pid_namespace) == (other.host, other.boot, other.pid_namespace);
    if !is_known || !same || me == other {
        return false;
    }
    let Some(pid) = i32::try_from(other.pid).ok().and_then(Pid::from_raw) else { return false };
    // Not whether /proc shows it: that may hide the processes of other users.
    match test_kill_process(pid) {
        Err(Errno::SRCH) => true,
        Ok(()) | Err(_) => {
            is_proc_ours(me) && stat(other.pid).is_some_and(|it| it.proves(me, other))
        }
    }
}

/// Whether /proc shows the processes by the numbers that this process knows them by.
fn is_proc_ours(me: &Holder) -> bool {
    fs::read_link("/proc/self").is_ok_and(|it| it == Path::new(&me.pid.to_string()))
}

fn stat(pid: u32) -> Option<Stat> {
    Stat::read(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// What is read of `/proc/PID/stat` (proc(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    /// Field 3.
    state: char,
    /// Field 20.
    threads: u64,
    /// Field 22, in clock ticks since boot, as the time namespace of the reader counts them
    /// (time_namespaces(7)).
    started: u64,
}

impl Stat {
    /// The name before these fields stands in parentheses and may hold anything.
    fn read(text: &str) -> Option<Self> {
        let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let threads = fields.nth(16)?.parse().ok()?;
        let started = fields.nth(1)?.parse().ok()?;
        Some(Self { state, threads, started })
    }

    /// That `holder` is gone, as `me` reads this: its number has another process, or it has ended
    /// and its parent has not asked how. Its last thread must have ended too, since the first may
    /// end before others.
    fn proves(self, me: &Holder, holder: &Holder) -> bool {
        // One and the same start has another number in each time namespace.
        let same_time = me.time_namespace != 0 && me.time_namespace == holder.time_namespace;
        let is_another = same_time && holder.started != 0 && self.started != holder.started;
        let is_over = matches!(self.state, 'Z' | 'X') && self.threads <= 1;
        is_another || is_over
    }
}

fn copy_hex(text: &str, into: &mut [u8]) {
    for (byte, pair) in into.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).unwrap_or_default();
        *byte = u8::from_str_radix(pair, 16).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use rustix::process::{Signal, kill_process};

    use super::*;

    #[test]
    fn the_fields_are_found_behind_any_name() {
        let fields: Vec<String> = (4..=52).map(|it| it.to_string()).collect();
        let text = format!("12 (a ) b) S {}", fields.join(" "));
        assert_eq!(Stat::read(&text), Some(Stat { state: 'S', threads: 20, started: 22 }));
        assert_eq!(Stat::read("12 (a"), None);
    }

    /// A process that waits for its input, ended when it is dropped.
    struct Waiting(Child);

    impl Waiting {
        fn start() -> Self {
            Self(Command::new("cat").stdin(Stdio::piped()).spawn().unwrap())
        }

        fn holder(&self) -> Holder {
            let pid = self.0.id();
            Holder { pid, started: stat(pid).unwrap().started, ..this_process() }
        }

        fn signal(&self, signal: Signal) {
            kill_process(Pid::from_child(&self.0), signal).unwrap();
        }
    }

    impl Drop for Waiting {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_process_that_lives_is_not_gone_stopped_or_not() {
        let (me, process) = (this_process(), Waiting::start());
        let holder = process.holder();
        assert!(!is_gone(&me, &me));
        assert!(!is_gone(&me, &holder));
        process.signal(Signal::STOP);
        while stat(holder.pid).unwrap().state != 'T' {
            std::thread::yield_now();
        }
        assert!(!is_gone(&me, &holder));
    }

    #[test]
    fn a_process_that_has_ended_is_gone_before_and_after_its_parent_has_asked_how() {
        let (me, mut process) = (this_process(), Waiting::start());
        let holder = process.holder();
        process.signal(Signal::KILL);
        while stat(holder.pid).unwrap().state != 'Z' {
            std::thread::yield_now();
        }
        assert!(is_gone(&me, &holder));
        process.0.wait().unwrap();
        assert!(is_gone(&me, &holder));
    }

    #[test]
    fn a_number_that_another_process_has_by_now_proves_the_first_one_gone() {
        let (me, process) = (this_process(), Waiting::start());
        let holder = process.holder();
        assert!(is_gone(&me, &Holder { started: holder.started - 1, ..holder }));
        // Without a start time nobody can tell which of the two it is.
        assert!(!is_gone(&me, &Holder { started: 0, ..holder }));
    }

    #[test]
    fn start_times_prove_nothing_between_time_namespaces_or_where_one_is_not_known() {
        let (me, mut process) = (this_process(), Waiting::start());
        let holder = process.holder();
        assert_ne!(me.time_namespace, 0);
        let earlier = Holder { started: holder.started - 1, ..holder };
        assert!(is_gone(&me, &earlier));
        let elsewhere = |it: Holder| Holder { time_namespace: it.time_namespace - 1, ..it };
        let nowhere = |it: Holder| Holder { time_namespace: 0, ..it };
        assert!(!is_gone(&me, &elsewhere(earlier)) && !is_gone(&elsewhere(me), &earlier));
        assert!(!is_gone(&me, &nowhere(earlier)) && !is_gone(&nowhere(me), &earlier));
        assert!(!is_gone(&nowhere(me), &nowhere(earlier)));
        // That there is no such process any more needs no time.
        process.0.kill().unwrap();
        process.0.wait().unwrap();
        assert!(is_gone(&me, &elsewhere(earlier)) && is_gone(&me, &nowhere(earlier)));
    }

    /// One process as two others saw it, the second in a time namespace ahead by 1,000,000 s
    /// (`unshare --time --boottime 1000000`).
    #[test]
    fn one_and_the_same_start_is_another_number_in_another_time_namespace() {
        let rest = "5320704 993 18446744073709551615 1 1 0 0 0 0 65536 4 1132560123 0 0 0 17 1";
        let line = |started: &str| {
            format!(
                "22321 (sh) S 1 22321 22321 0 -1 64 9 9 0 53 5 3 82 26 20 0 1 0 {started} {rest}"
            )
        };
        let [here, there] = ["42414", "100042414"].map(|it| Stat::read(&line(it)).unwrap());
        let me = this_process();
        let holder = Holder { started: here.started, ..me };
        let ahead = Holder { time_namespace: me.time_namespace + 1, ..me };
        assert!(!here.proves(&me, &holder));
        assert!(!there.proves(&ahead, &holder), "it is one and the same process");
        assert!(there.proves(&me, &holder));
    }

    #[test]
    fn nothing_is_proved_of_another_host_boot_or_namespace() {
        let (me, mut process) = (this_process(), Waiting::start());
        let holder = process.holder();
        process.signal(Signal::KILL);
        process.0.wait().unwrap();
        assert!(is_gone(&me, &holder));
        assert!(!is_gone(&me, &Holder { host: [9; 8], ..holder }));
        assert!(!is_gone(&me, &Holder { boot: [9; 16], ..holder }));
        assert!(!is_gone(&me, &Holder { pid_namespace: 9, ..holder }));
        // One that does not know its own place knows nobody's.
        let lost = Holder { boot: [0; 16], ..me };
        assert!(!is_gone(&lost, &Holder { boot: [0; 16], ..holder }));
        let lost = Holder { pid_namespace: 0, ..me };
        assert!(!is_gone(&lost, &Holder { pid_namespace: 0, ..holder }));
    }
}
