//! A holder that is stopped (SIGSTOP) for longer than its lease, and goes on: two proxies on one
//! SQLite file, before a receiver of each class.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onlyonce_testbed::Postgres;
use rustix::process::{Pid, Signal, kill_process};

use crate::bench::until;
use crate::caller::{Answer, Caller, Saw};
use crate::occupied;
use crate::site::{Rule, Site, TABLES};

/// Longer than a lease, so that the receiver still knows the key when it is over.
const WINDOW: Duration = Duration::from_secs(15);
/// Rows that are played at once.
const TOGETHER: usize = 5;

/// What every proxy is told; the lease is one that a busy machine can keep.
const CONFIG: &str = "\
    [policy]\nlease = \"2s\"\nskew_max = \"100ms\"\nwait = \"100ms\"\non_unknown = \"auto\"\n";
const FENCED: &str = "[policy.receiver]\nalways = \"fenced\"\n";
const UNIQUE: &str = "[policy.receiver]\nalways = \"unique-name\"\n";
const KEYED: &str = "[policy.receiver]\nkeyed = \"15s\"\n";
const QUERYABLE: &str = "\
    [policy.receiver]\nsettle = \"100ms\"\nlate = \"400ms\"\n\
    [policy.probe]\npath = \"/orders/{key}\"\nabsent_status = 404\n\
    absent_member = \"/error = no such order\"\n";

/// What the receiver is, in words of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Fenced,
    UniqueName,
    Keyed,
    Queryable,
    Bare,
}

/// Where the holder is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Before it connects, and asks its lease.
    Early,
    /// Between asking its lease and the first byte, by one of its threads: the others see that the
    /// lease is over when they go on, and that one sends all the same.
    Late,
    /// When all is sent, and waits at the receiver.
    Sent,
}

/// When it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wakes {
    /// Once the next one has been told that nobody knows.
    InDoubt,
    /// While the next one is at work.
    Beside,
    /// Once the next one was answered.
    After,
    /// The same, and when the receiver has forgotten the key.
    Forgotten,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
struct Row {
    class: Class,
    at: At,
    wakes: Wakes,
    /// Effects when it goes on, and in the end.
    effects: (usize, usize),
    /// What is promised for this case.
    promise: &'static str,
}

const ONCE: &str = "exactly once";
const BOUNDS: &str = "at most once if the bounds hold";

/// All of them.
fn rows() -> Vec<Row> {
    let row = |class, at, wakes, effects, promise| Row { class, at, wakes, effects, promise };
    let window = "exactly once within the window";
    let forgotten = "none: no window helps against who was stopped for longer";
    let (late, bare) = ("none: it came later than `late` says", "at most once, never silently");
    vec![
        row(Class::Fenced, At::Early, Wakes::After, (1, 1), ONCE),
        row(Class::Fenced, At::Late, Wakes::After, (1, 1), ONCE),
        row(Class::Fenced, At::Late, Wakes::Beside, (1, 1), ONCE),
        row(Class::Fenced, At::Sent, Wakes::Beside, (1, 1), ONCE),
        row(Class::Fenced, At::Sent, Wakes::After, (1, 1), ONCE),
        row(Class::UniqueName, At::Early, Wakes::After, (1, 1), ONCE),
        row(Class::UniqueName, At::Late, Wakes::After, (1, 1), ONCE),
        row(Class::UniqueName, At::Sent, Wakes::Beside, (1, 1), ONCE),
        row(Class::Keyed, At::Late, Wakes::After, (1, 1), window),
        row(Class::Keyed, At::Sent, Wakes::After, (1, 1), window),
        row(Class::Keyed, At::Early, Wakes::Forgotten, (1, 1), window),
        row(Class::Keyed, At::Late, Wakes::Forgotten, (1, 2), forgotten),
        row(Class::Queryable, At::Late, Wakes::InDoubt, (0, 1), BOUNDS),
        row(Class::Queryable, At::Sent, Wakes::InDoubt, (0, 1), BOUNDS),
        row(Class::Queryable, At::Early, Wakes::After, (1, 1), BOUNDS),
        row(Class::Queryable, At::Late, Wakes::After, (1, 2), late),
        row(Class::Bare, At::Early, Wakes::InDoubt, (0, 1), bare),
        row(Class::Bare, At::Late, Wakes::InDoubt, (0, 1), bare),
        row(Class::Bare, At::Sent, Wakes::InDoubt, (0, 1), bare),
    ]
}

/// A proxy of its own process, killed when it is dropped.
struct Proxy {
    child: Child,
    address: SocketAddr,
}

impl Proxy {
    fn start(binary: &Path, store: &str, config: &Path, site: &Site, order: &Path) -> Self {
        let upstream = format!("http://{}", site.address);
        let mut command = Command::new(binary);
        command.args(["proxy", "--listen", "127.0.0.1:0", "--log-level", "error"]);
        command.args(["--upstream", &upstream, "--store", store]).arg("--config").arg(config);
        command.env_remove("ONLYONCE_STORE").env("ONLYONCE_KILL_AT", order);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let address = out.lines().map_while(Result::ok).find_map(|line| {
            let rest = line.strip_prefix("listening on http://")?;
            rest.split(' ').next()?.parse().ok()
        });
        Self { child, address: address.expect("a proxy that listens") }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Asks until nobody is at work on it, and the store answers.
    fn asks(&self, key: &str) -> Answer {
        until("an answer", || {
            let answer = Caller::ask(self.address, "/orders", key, 0).saw().whole()?;
            (answer.says != "in-progress" && answer.status != 503).then_some(answer)
        })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A row as it was found.
struct Found {
    row: Row,
    /// What the next one was told while the holder was stopped.
    meanwhile: String,
    /// What the caller of the holder was told.
    woken: String,
    /// What whoever asks in the end is told.
    again: String,
}

fn words(answer: &Answer) -> String {
    let Answer { status, says, .. } = answer;
    match answer.problem() {
        Some(problem) => format!("{status} {says} (`{problem}`)"),
        None => format!("{status} {says}"),
    }
}

fn config(class: Class) -> String {
    let receiver = match class {
        Class::Fenced => FENCED,
        Class::UniqueName => UNIQUE,
        Class::Keyed => KEYED,
        Class::Queryable => QUERYABLE,
        Class::Bare => "",
    };
    CONFIG.to_owned() + receiver
}

/// Two proxies on one store, before one receiver.
struct World {
    folder: tempfile::TempDir,
    site: Site,
    holder: Proxy,
    next: Proxy,
}

impl World {
    fn new(row: Row, binary: &Path, postgres: &Arc<Postgres>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let store = format!("sqlite:{}", path("once.db").display());
        let mut init = Command::new(binary);
        init.args(["store", "init", "--first", "--store", &store]).stdout(Stdio::null());
        assert!(init.status().unwrap().success());
        std::fs::write(path("proxy.toml"), config(row.class)).unwrap();
        let site = Site::open(match row.class {
            Class::Fenced => Rule::Fenced(Arc::clone(postgres)),
            Class::UniqueName => Rule::UniqueName(Arc::clone(postgres)),
            Class::Keyed => Rule::Keyed(WINDOW),
            Class::Queryable | Class::Bare => Rule::Acts,
        });
        let start = |order| Proxy::start(binary, &store, &path("proxy.toml"), &site, &path(order));
        let (holder, next) = (start("order"), start("none"));
        Self { folder, site, holder, next }
    }

    fn order(&self) -> PathBuf {
        self.folder.path().join("order")
    }

    /// A request whose holder is stopped.
    fn stopped(&self, at: At, key: &str) -> Caller {
        // What is written to a connection that was used before goes out at once.
        self.holder.asks(&format!("{key}-before"));
        let place = match at {
            At::Early => "hold run.call.before",
            At::Late => "hold upstream.write.before\nPOST /orders",
            // All is written long before the lease is renewed, and known to be.
            At::Sent => "pass engine.swap.after\nRenew {",
        };
        std::fs::write(self.order(), place).unwrap();
        if at == At::Sent {
            self.site.queue(1);
        }
        let caller = Caller::ask(self.holder.address, "/orders", key, 0);
        if at == At::Sent {
            self.site.sees(key, 1);
        }
        let passed = self.order().with_extension("passed");
        until("a holder at its place", || passed.exists().then_some(()));
        self.holder.signal(Signal::STOP);
        caller
    }

    /// The holder goes on; what its caller is told.
    fn woken(&self, at: At, key: &str, stopped: Caller) -> String {
        let go_on = || std::fs::remove_file(self.order()).unwrap();
        match at {
            At::Early => go_on(),
            At::Late => {}
            At::Sent => self.site.take(),
        }
        self.holder.signal(Signal::CONT);
        let told = match stopped.saw() {
            Saw::Whole(answer) => words(&answer),
            Saw::Part | Saw::Nothing => "nothing".to_owned(),
        };
        if at == At::Late {
            go_on();
            self.site.sees(key, 1);
        }
        told
    }

    /// What the next one is told: in the end, or that nobody knows.
    fn next(&self, wakes: Wakes, key: &str) -> Answer {
        until("an answer of the next one", || {
            let answer = self.next.asks(key);
            (answer.is_the_shops() || wakes == Wakes::InDoubt).then_some(answer)
        })
    }
}

fn played(row: Row, binary: &Path, postgres: &Arc<Postgres>, key: &str) -> Found {
    let world = World::new(row, binary, postgres);
    let World { site, next, .. } = &world;
    let stopped = world.stopped(row.at, key);
    let (meanwhile, woken) = std::thread::scope(|threads| {
        if row.wakes == Wakes::Beside {
            site.hold(2);
        }
        let answer = threads.spawn(|| world.next(row.wakes, key));
        if row.wakes == Wakes::Beside {
            site.began(key);
        } else {
            until("the next one's answer", || answer.is_finished().then_some(()));
        }
        if row.wakes == Wakes::Forgotten {
            site.forgets(key);
        }
        assert_eq!(site.effects_of(key), row.effects.0, "{row:?}");
        let woken = world.woken(row.at, key, stopped);
        site.let_go();
        (words(&answer.join().unwrap()), woken)
    });
    if row.at != At::Early {
        // The effect of what came last is counted a moment after it came.
        until("its effects", || (row.effects.1 <= site.effects_of(key)).then_some(()));
    }
    let again = world.next(Wakes::InDoubt, key);
    let twice = next.asks(key);
    assert_eq!(twice.status, again.status, "{row:?}");
    assert!(!twice.is_the_shops() || twice.says == "replayed", "{row:?}");
    assert_eq!(site.effects_of(key), row.effects.1, "{row:?}: {meanwhile}, {woken}, {again:?}");
    Found { row, meanwhile, woken, again: words(&again) }
}

/// What stands above the table.
const STORY: &str = "\
    Two proxies on one SQLite file, with `on_unknown = \"auto\"` and a lease of two seconds. The \
    one that has the claim is stopped (SIGSTOP) until its lease is over and the other one has \
    done what the class of the receiver allows; then it goes on. *Early* is before it connects: \
    it asks its lease before it sends. *Late* is between that and the first byte, in one thread: \
    the others see that the lease is over and tell the caller so, and what that thread then \
    sends only the receiver can refuse. *Sent* is when the request waits at the receiver, which \
    takes it when the holder goes on. The fenced receiver is a row of PostgreSQL that takes no \
    lower fence, the one with unique names a primary key there.";

/// Plays all rows.
pub(crate) fn section(binary: &Path) -> String {
    let postgres = Arc::new(Postgres::start());
    postgres.sql("postgres", TABLES);
    let waiting = Mutex::new(rows().into_iter().enumerate());
    let found = Mutex::new(BTreeMap::new());
    std::thread::scope(|threads| {
        for _ in 0..TOGETHER {
            threads.spawn(|| {
                loop {
                    let next = waiting.lock().unwrap().next();
                    let Some((number, row)) = next else { break };
                    let key = format!("frozen-{number}");
                    let row = played(row, binary, &postgres, &key);
                    found.lock().unwrap().insert(number, row);
                }
            });
        }
    });
    let mut page = format!("\n## A holder that was frozen\n\n{STORY}\n\n");
    page += "| receiver | stopped | the next one is told | effects | goes on | is told | effects \
             then | the same key again | promised |\n|---|---|---|---|---|---|---|---|---|\n";
    for Found { row, meanwhile, woken, again } in found.into_inner().unwrap().into_values() {
        let Row { class, at, wakes, effects: (before, then), promise } = row;
        let class = match class {
            Class::Fenced => "fenced",
            Class::UniqueName => "unique-name",
            Class::Keyed => "keyed",
            Class::Queryable => "queryable",
            Class::Bare => "bare",
        };
        let at = match at {
            At::Early => "early",
            At::Late => "late",
            At::Sent => "sent",
        };
        let wakes = match wakes {
            Wakes::InDoubt => "when nobody knows",
            Wakes::Beside => "while the next one is at work",
            Wakes::After => "after that",
            Wakes::Forgotten => "when the key is forgotten there",
        };
        page += &format!(
            "| {class} | {at} | {meanwhile} | {before} | {wakes} | {woken} | {then} | {again} | \
             {promise} |\n"
        );
    }
    page + &occupied::section()
}
