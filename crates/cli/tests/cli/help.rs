//! What a person sees first: the help of every command, wrong flags, and what a proxy says when it
//! begins.

use crate::caller::order;
use crate::process::{Folder, Proxy, onlyonce};
use crate::upstream::{Manner, Upstream};

const STORE: &[&str] = &["--store <URL>", "--key-file <FILE>"];
const KEY: &[&str] = &[
    "[ID]",
    "--key <KEY>",
    "--scope <RULE>",
    "-H, --header <FIELD>",
    "--store <URL>",
    "--key-file <FILE>",
];

/// Every command, and what can be said with it.
const COMMANDS: [(&[&str], &[&[&str]]); 31] = [
    (&["demo"], &[&["--port <PORT>", "--seed <SEED>", "--keep <DIR>"]]),
    (
        &["proxy"],
        &[
            STORE,
            &["--upstream <URL>", "--listen <ADDR>", "--config <FILE>", "--disk-max <MIB>"],
            &["--clock-is-right", "--log <LOG>", "--log-level <LOG_LEVEL>"],
        ],
    ),
    (&["store", "init"], &[STORE, &["--first"]]),
    (
        &["store", "restored"],
        &[&["--store <URL>", "--at-rest", "--clock-is-right", "--why <TEXT>", "--by <NAME>"]],
    ),
    (&["store", "spread"], &[&["--store <URL>", "--at-rest"]]),
    (&["store", "rebalance"], &[&["--store <URL>", "--without <URL>", "--at-rest"]]),
    (&["store", "functions"], &[&["--store <URL>"]]),
    (&["keys", "list"], &[STORE, &["--state <STATE>", "--alarm", "--json", "--limit <N>"]]),
    (&["keys", "get"], &[KEY]),
    (
        &["keys", "resolve"],
        &[
            KEY,
            &[
                "--fence <N>",
                "--happened <FILE>",
                "--retention <DURATION>",
                "--did-not-happen",
                "--run-again",
            ],
            &["--exited <CODE>", "--stdout <FILE>"],
            &["--why <TEXT>", "--by <NAME>"],
        ],
    ),
    (&["keys", "seal"], &[KEY, &["--why <TEXT>", "--by <NAME>"]]),
    (
        &["mail", "add"],
        &[
            &["[FILE]", "--key <KEY>", "--from <ADDRESS>", "--to <ADDRESS>", "--spool <DIR>"],
            &["--lines"],
        ],
    ),
    (
        &["mail", "run"],
        &[
            STORE,
            &["--server <HOST>", "--tls <TLS>", "- starttls:", "- tls:", "- none:"],
            &["--user <NAME>", "--password-file <FILE>", "--hello <NAME>", "--workers <N>"],
            &["--auth <MECHANISM>", "- plain:", "- login:", "- xoauth2:"],
            &["--once", "--spool <DIR>", "--retention <DURATION>", "--per-domain <N>"],
            &["--rate <RATE>", "--rate-per-domain <RATE>", "--provider <FILE>", "--outbox <URL>"],
            &["--on-unknown <ON_UNKNOWN>", "- hold:", "- probe:", "--probe <WHO>"],
            &["- retry:", "--window <DURATION>"],
            &["--probe-absent <CODES>", "--probe-log <FILE>", "--settle <DURATION>"],
            &["--late <DURATION>", "--probe-tls <PROBE_TLS>", "--probe-password-file <FILE>"],
            &["--config <FILE>", "--tries <N>", "--try-for <DURATION>"],
        ],
    ),
    (
        &["run"],
        &[
            &["--key <KEY>", "--scope <NAME>", "--retention <DURATION>", "--wait <DURATION>"],
            &["--output-max <BYTES>", "--retry-exit <CODES>", "--unknown-exit <CODES>"],
            &["--on-unknown <ON_UNKNOWN>", "- hold:", "- retry:", "- probe:"],
            &["--probe <COMMAND>", "--probe-absent <CODES>", "--late <DURATION>"],
            &["--env-key <NAMES>", "--any-dir", "--codes-from <CODE>", "--mark-replay"],
            STORE,
            &["--state <DIR>", "--clock-is-right", "<COMMAND>..."],
        ],
    ),
    (&["mail", "outbox"], &[&["[URL]", "--print [<KIND>]", "postgres, mysql"]]),
    (&["mail", "status"], &[STORE, &["--json", "--spool <DIR>", "--outbox <URL>"]]),
    (&["plan"], &[STORE, &["<FILE>", "--json"]]),
    (
        &["apply"],
        &[STORE, &["<FILE>", "--json", "--metrics <FILE>", "--parallel <N>", "--wait <DURATION>"]],
    ),
    (&["resources", "status"], &[STORE, &["<FILE>", "--json"]]),
    (
        &["resources", "resolve"],
        &[
            STORE,
            &["<FILE>", "<KEY>", "--fence <N>", "--made <ID>", "--not-made"],
            &["--destroyed", "--not-destroyed"],
            &["--run-again", "--why <TEXT>", "--by <NAME>"],
        ],
    ),
    (
        &["resources", "destroy"],
        &[
            STORE,
            &["<FILE>", "<KEY>", "--id <ID>", "--wait <DURATION>"],
            &["--why <TEXT>", "--by <NAME>"],
        ],
    ),
    (&["resources", "forget"], &[STORE, &["<FILE>", "<KEY>", "--why <TEXT>", "--by <NAME>"]]),
    (&["resources", "import"], &[STORE, &["<FILE>", "<KEY>", "--id <ID>"]]),
    (&["journal", "check"], &[&["<DIR>"]]),
    (&["journal", "backup"], &[&["<DIR>", "<TO>"]]),
    (&["journal", "restore"], &[&["<FROM>", "<TO>"]]),
    (&["journal", "salvage"], &[&["<FROM>", "<TO>"]]),
    (&["config", "check"], &[&["<FILE>"]]),
    (
        &["size"],
        &[&[
            "--kind <KIND>",
            "--rate <N>",
            "--reply-size <BYTES>",
            "--retention <DURATION>",
            "--remember <DURATION>",
        ]],
    ),
    (&["generate", "man"], &[]),
    (&["generate", "completions"], &[&["<SHELL>"]]),
];

/// What every command takes.
const EVERYWHERE: [&str; 2] = ["-h, --help", "--accept-risk <NAME>"];

#[test]
fn the_help_of_every_command_names_all_that_can_be_said() {
    for (command, groups) in COMMANDS {
        let help = onlyonce(command.iter().chain(&["--help"])).done();
        let words = groups.iter().copied().flatten();
        for word in words.chain(&EVERYWHERE) {
            assert!(help.contains(word), "{command:?} does not name {word}:\n{help}");
        }
        // Nothing in the help that is not in the table: then the table is the one that lags.
        let said = help.lines().filter(|line| line.trim_start().starts_with('-'));
        for line in said {
            let known = groups.iter().copied().flatten().chain(&EVERYWHERE);
            let mut known = known.filter(|word| line.contains(**word));
            assert!(known.next().is_some(), "{command:?}: {line}");
        }
    }
}

#[test]
fn the_first_help_names_every_command_and_where_to_begin() {
    let help = onlyonce(["--help"]).done();
    for (command, _) in COMMANDS {
        let line = format!("\n  {} ", command[0]);
        assert!(help.contains(&line), "{command:?} is not in\n{help}");
    }
    assert!(help.contains("onlyonce demo"), "{help}");
    let version = onlyonce(["--version"]).done();
    assert_eq!(version, format!("onlyonce {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_wrong_flag_is_named_and_does_nothing() {
    for (command, _) in COMMANDS {
        let told = onlyonce(command.iter().chain(&["--frist"])).failed(2);
        assert!(told.contains("--frist"), "{told}");
    }
    onlyonce(["nonsense"]).failed(2);
    onlyonce([""; 0]).failed(2);
    let told = onlyonce(["proxy"]).failed(2);
    assert!(told.contains("--upstream <URL>"), "{told}");
    let told = onlyonce(["keys", "list", "--store", "redis:there"]).failed(2);
    assert!(told.contains("journal:DIR"), "{told}");
    let told = onlyonce(["proxy", "--upstream", "127.0.0.1:3000"]).failed(2);
    assert!(told.contains("such as http://127.0.0.1:3000"), "{told}");
}

#[test]
fn the_man_page_and_completions_come_from_the_same_text() {
    let page = onlyonce(["generate", "man"]).done();
    assert!(page.contains(".TH onlyonce 1"), "{page}");
    for shell in ["bash", "zsh", "fish"] {
        let text = onlyonce(["generate", "completions", shell]).done();
        assert!(text.contains("disk-max") && text.contains("run-again"), "{shell}");
    }
    onlyonce(["generate", "completions", "abacus"]).failed(2);
}

#[test]
fn a_proxy_says_where_it_listens_what_it_made_and_what_is_in_doubt() {
    let (upstream, folder) = (Upstream::open(), Folder::empty());
    let proxy = Proxy::start(&folder, &upstream);
    let listens = format!("listening on http://{} for {}", proxy.address, upstream.address);
    let hello = proxy.hello();
    assert_eq!(hello.lines().last(), Some(listens.as_str()));
    let made = format!("made a journal in {}. It is strict", folder.journal().display());
    assert!(hello.contains(&made), "{hello}");
    assert!(hello.contains("onlyonce store init --first"), "{hello}");
    upstream.manner(Manner::Cut);
    order("tap").send(proxy.address).is_problem(502, "outcome-unknown");
    proxy.stop();

    let lines = "[admin]\nlisten = \"127.0.0.1:0\"\ntoken = \"0123456789abcdef\"\n";
    let config = folder.write("onlyonce.toml", lines);
    let proxy = Proxy::start_with(&folder.store(), &upstream, &["--config", &config]);
    let hello = proxy.hello();
    assert!(!hello.contains("made a journal"), "{hello}");
    let doubt = "1 outcomes are unknown; see `onlyonce keys list --state unknown`";
    assert!(hello.contains(doubt), "{hello}");
    assert!(hello.contains("operators at http://127.0.0.1:"), "{hello}");
    assert!(!hello.contains("0123456789abcdef"), "{hello}");
}

#[test]
fn the_size_of_a_journal_is_told_with_what_a_late_retry_gets() {
    let told = onlyonce(["size", "--rate", "100", "--retention", "1d", "--remember", "2d"]).done();
    for says in ["8,640,000", "412 key-expired", "runs as new", "up to 1day", "GiB"] {
        assert!(told.contains(says), "{says}: {told}");
    }
    for kind in ["sqlite", "postgres", "redis", "etcd"] {
        let told = onlyonce(["size", "--kind", kind, "--rate", "100", "--remember", "2d"]).done();
        for says in ["8,640,000", "at least", "not known here", "412 key-expired"] {
            assert!(told.contains(says), "{kind}, {says}: {told}");
        }
    }
    onlyonce(["size", "--retention", "2d", "--remember", "1d"]).failed(2);
    onlyonce(["size", "--rate", "many"]).failed(2);
}
