//! A mistake is named with file, line and column, a flag counts before the file, and the page about
//! it names all that there is.

use std::collections::BTreeSet;

use clap::Parser as _;
use onlyonce_mail::Keyed;
use onlyonce_smtp::Mechanism;

use super::*;

#[derive(clap::Parser)]
struct Words {
    #[command(flatten)]
    run: RunArgs,
}

const SERVER: &str = "[server]\nhost = \"127.0.0.1:2525\"\ntls = \"none\"\n";
const MINUTE: Duration = Duration::from_secs(60);

fn plan(flags: &[&str], text: &str) -> Result<Plan, String> {
    let words = ["run", "--config", "mail.toml"].iter().chain(flags);
    let args = Words::try_parse_from(words).map_err(|error| error.to_string())?.run;
    read(&args, "mail.toml", text).map_err(|failure| failure.what)
}

fn host(plan: &Plan) -> &str {
    match &plan.way {
        Way::Relay(relay) => &relay.host,
        Way::Provider(_) => "a provider",
    }
}

#[test]
fn nothing_but_the_server_is_needed() {
    let plan = plan(&[], SERVER).unwrap();
    assert_eq!((host(&plan), plan.pace), ("127.0.0.1", Pace::default()));
    assert_eq!((plan.usual, plan.probe), (Rules::default(), None));
    assert!(plan.classes.is_empty() && plan.destinations.is_empty() && plan.outbox.is_none());
}

#[test]
fn what_a_class_does_not_say_is_as_in_the_policy() {
    let plan = plan(
        &["--tries", "9"],
        &format!(
            "{SERVER}[probe]\nwho = \"exit 10\"\nabsent = [10]\nlate = \"1m\"\n\
             [policy]\ntries = 3\nretention = \"1d\"\non_unknown = \"probe\"\n\
             [[class]]\nkeys = \"login/\"\nrate = \"10/s\"\n\
             [class.policy]\ntry_for = \"1m\"\non_unknown = \"hold\"\n\
             [[class]]\nkeys = \"news/\"\n"
        ),
    )
    .unwrap();
    let [login, news] = &plan.classes[..] else { panic!("{:?}", plan.classes) };
    assert_eq!((login.keys.as_str(), login.apart), ("login/", Duration::from_millis(100)));
    assert_eq!((login.rules.try_for, login.rules.tries), (Some(MINUTE), Some(9)));
    assert_eq!((&login.rules.asking, &news.rules), (&None, &plan.usual));
    let asking = plan.usual.asking.unwrap();
    assert_eq!((asking.late, Some(&asking)), (MINUTE, plan.probe.as_ref()));
    assert_eq!(plan.usual.retention, Duration::from_secs(24 * 60 * 60));
}

#[test]
fn a_flag_counts_before_the_file_and_another_server_is_told_nothing_of_the_first() {
    let file = format!(
        "workers = 7\nrate = \"1/s\"\nper_domain = 2\noutbox = \"sqlite:a.db\"\n{SERVER}\
         hello = \"shop.example\"\n[probe]\nwho = \"true\"\nlate = \"1m\"\n\
         [policy]\non_unknown = \"probe\"\n\
         [[destination]]\ndomains = [\"A.example\", \"b.example\"]\nrate = \"1/m\"\n"
    );
    let said = plan(&[], &file).unwrap();
    assert_eq!((said.pace.workers, said.pace.per_domain), (7, 2));
    assert_eq!(said.outbox.map(|it| it.to_string()).as_deref(), Some("sqlite:a.db"));
    let [both] = &said.destinations[..] else { panic!() };
    assert_eq!(
        (&*both.domains, both.workers),
        (&["a.example", "b.example"].map(str::to_owned)[..], 2)
    );
    assert_eq!(both.apart, MINUTE);

    let flags =
        ["--workers", "3", "--rate", "2/s", "--outbox", "sqlite:b.db", "--hello", "b.example"];
    let over = plan(&flags, &file).unwrap();
    assert_eq!((over.pace.workers, over.pace.apart), (3, Duration::from_millis(500)));
    assert_eq!(over.outbox.map(|it| it.to_string()).as_deref(), Some("sqlite:b.db"));
    let Way::Relay(relay) = over.way else { panic!() };
    assert_eq!((relay.host.as_str(), relay.hello.as_str()), ("127.0.0.1", "b.example"));

    let other = plan(&["--server", "mx.example", "--tls", "none", "--probe", "exit 1"], &file);
    let other = other.unwrap();
    let Way::Relay(relay) = other.way else { panic!() };
    assert_eq!((relay.host.as_str(), relay.hello.as_str()), ("mx.example", "localhost"));
    assert_eq!(other.probe.unwrap().late, 15 * MINUTE, "what was meant for the other probe");
}

/// Of these alone: an invoice is never sent twice.
#[test]
fn one_class_is_sent_again_while_its_copies_are_dropped_and_the_others_are_held() {
    let class = "[[class]]\nkeys = \"news/\"\n[class.policy]\non_unknown = \"retry\"\n";
    let error = plan(&[], &format!("{SERVER}{class}")).err().unwrap();
    assert!(error.starts_with("mail.toml:4:1") && error.contains("for how long"), "{error}");
    let said = plan(&[], &format!("{SERVER}{class}window = \"1h\"\n")).unwrap();
    let keyed = Keyed { window: 60 * MINUTE, late: 15 * MINUTE };
    assert_eq!((said.usual.keyed, said.classes[0].rules.keyed), (None, Some(keyed)));
    let flags = ["--on-unknown", "retry", "--window", "1h"];
    assert_eq!(plan(&flags, SERVER).unwrap().usual.keyed, Some(keyed));
    // A provider sends no Message-ID of ours, by which a mailbox would drop the second copy.
    let mut provider = tempfile::NamedTempFile::new().unwrap();
    let text = b"url = \"https://mail.example/emails\"\nid = \"/id\"\n[json]\nto = \"${to}\"\n";
    std::io::Write::write_all(&mut provider, text).unwrap();
    let path = provider.path().display().to_string();
    let flags = ["--provider", &path, "--on-unknown", "retry", "--window", "1h"];
    let error = plan(&flags, "").err().unwrap();
    assert!(error.contains("--on-unknown") && error.contains("words of its own"), "{error}");
}

/// A token is no password, and is said as one only if somebody says so.
#[test]
fn a_login_is_said_as_the_flag_or_the_file_says() {
    let mut secret = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut secret, b"token\n").unwrap();
    let file = format!(
        "[server]\nhost = \"a.example\"\nuser = \"me\"\npassword_file = \"{}\"\n",
        secret.path().display()
    );
    let by_file = format!("{file}auth = \"xoauth2\"\n");
    for (flags, file, mechanism) in [
        (&[][..], &file, None),
        (&[], &by_file, Some(Mechanism::Xoauth2)),
        (&["--auth", "login"], &by_file, Some(Mechanism::Login)),
        (&["--auth", "plain"], &file, Some(Mechanism::Plain)),
    ] {
        let Way::Relay(relay) = plan(flags, file).unwrap().way else { panic!() };
        assert_eq!(relay.login.unwrap().mechanism, mechanism, "{flags:?}");
    }
}

#[test]
fn every_mistake_names_its_place_and_the_way_out() {
    let probe = "[probe]\nwho = \"postfix\"\n";
    for (text, place, says) in [
        ("", ":1:1", "[server]"),
        ("workerz = 3", ":1:1", "did you mean `workers`?"),
        ("workers = 0", ":1:11", "from 1 to 1000"),
        ("rate = \"fast\"", ":1:8", "a rate is N/s"),
        ("outbox = \"mongodb://a\"", ":1:10", "postgres://USER@HOST/DATABASE"),
        ("[server]\nhost = \"a:port\"", ":1:1", "no number up to 65535"),
        ("[server]\ntls = \"none\"", ":1:1", "host"),
        ("[server]\nhost = \"a\"\ntls = \"ssl\"", ":3:7", "`tls`"),
        ("[server]\nhost = \"a\"\nuser = \"me\"", ":1:1", "no password file"),
        ("[server]\nhost = \"a\"\nauth = \"xoauth2\"", ":1:1", "there is no user"),
        ("[server]\nhost = \"a\"\nauth = \"oauth\"", ":3:8", "did you mean `xoauth2`?"),
        ("[server]\nhost = \"a\"\nuser = \"me\"\ntls = \"none\"", ":1:1", "in the clear"),
        ("provider = \"a.toml\"\n[server]\nhost = \"a\"", ":1:12", "one way"),
        ("[policy]\non_unknown = \"probe\"", ":1:1", "[probe]"),
        ("[policy]\ntries = 0", ":2:9", "from 1"),
        ("[policy]\nretention = \"36501d\"", ":2:13", "36500d"),
        ("[policy]\ntry_for = \"soon\"", ":2:11", "no duration"),
        ("[probe]\nwho = \"true\"\nabsent = [126]", ":3:11", "from 1 to 125"),
        ("[probe]\nwho = \"true\"\nlog = \"x\"", ":1:1", "not of a command"),
        ("[probe]\nwho = \"imap://me@a/INBOX\"", ":1:1", "`settle`"),
        ("[[class]]\nkeys = \"\"", ":2:8", "begin with"),
        ("[[class]]\nkeys = \"a\"\n[[class]]\nkeys = \"a\"", ":4:8", "already"),
        ("[[class]]\nkeys = \"a\"\n[class.policy]\ntriez = 2", ":4:1", "did you mean `tries`?"),
        ("[[class]]\nkeys = \"a\"\n[class.policy]\non_unknown = \"probe\"", ":1:1", "[probe]"),
        ("[[destination]]\ndomains = [\"me@a\"]", ":2:12", "no domain"),
        ("[[destination]]\ndomains = []", ":1:1", "no domain"),
        ("[[destination]]\ndomains = [\"a\", \"A\"]", ":2:17", "already"),
        ("[[destination]]\ndomains = [\"a\"]\nworkers = 1001", ":3:11", "from 1 to 1000"),
    ] {
        let needs_server = ["[p", "[[", "workers"].iter().any(|it| text.starts_with(it));
        let all = if needs_server { format!("{text}\n{SERVER}") } else { text.to_owned() };
        let error = plan(&[], &all).err();
        let error = error.unwrap_or_else(|| panic!("{text}: it is taken"));
        assert!(error.starts_with(&format!("mail.toml{place}")), "{text}\n{error}");
        assert!(error.contains(says), "{text}\n{error}");
    }
    let unused = plan(&[], &format!("{SERVER}{probe}")).err().unwrap();
    assert!(unused.starts_with("mail.toml:4:1") && unused.contains("nobody asks it"), "{unused}");
}

/// A flag has no line, and the file is not blamed for it; nor is the flag for the file.
#[test]
fn a_mistake_is_named_where_it_was_made() {
    let (file, none) = (format!("[policy]\ntries = 3\n{SERVER}"), "/none/password");
    let login = format!("{SERVER}user = \"me\"\npassword_file = \"{none}\"\n");
    let login = login.replace("\"none\"", "\"tls\"");
    let archive = format!(
        "{SERVER}[probe]\nwho = \"imap://me@127.0.0.1/INBOX\"\nsettle = \"1h\"\n\
         password_file = \"{none}\"\n"
    );
    for (flags, text, place) in [
        (&["--on-unknown", "probe"][..], &file, "--on-unknown: "),
        (&["--retention", "36501d"], &file, "--retention: "),
        (&["--probe", "exit 1"], &file, "--probe: "),
        (&["--provider", none], &file, "--provider: "),
        (&[], &format!("provider = \"{none}\""), "mail.toml:1:12"),
        (&[], &login, "mail.toml:1:1"),
        (&["--hello", "a.example"], &login, "mail.toml:1:1"),
        (&[], &archive, "mail.toml:4:1"),
    ] {
        let error = plan(flags, text).err().unwrap_or_else(|| panic!("{flags:?}: it is taken"));
        assert!(error.starts_with(place), "{flags:?}\n{error}");
        let names_it = text.contains(none) || flags.contains(&none);
        assert_eq!(error.contains(none), names_it, "{flags:?}\n{error}");
        assert_eq!(error.contains("or a flag that counts before it"), flags.contains(&"--hello"));
    }
}

/// The server of the file says "no" of what another one has: that would be sent again.
#[test]
fn the_probe_of_the_file_is_not_asked_about_another_server_or_provider() {
    let file = format!(
        "{SERVER}[probe]\nwho = \"exit 10\"\nabsent = [10]\n[policy]\non_unknown = \"probe\"\n"
    );
    assert!(plan(&[], &file).unwrap().probe.is_some());
    let dir = tempfile::tempdir().unwrap();
    let provider = dir.path().join("provider.toml");
    let about = "url = \"http://127.0.0.1:1/emails\"\n[json]\nto = \"${to}\"\n";
    std::fs::write(&provider, about).unwrap();
    let provider = provider.to_str().unwrap();
    for other in [&["--server", "127.0.0.1", "--tls", "none"][..], &["--provider", provider]] {
        let error = plan(other, &file).err().unwrap();
        assert!(error.contains("for the server of the same file"), "{error}");
        let held = plan(&[other, &["--on-unknown", "hold"]].concat(), &file).unwrap();
        assert_eq!((held.probe, held.usual.asking), (None, None));
        let asked = plan(&[other, &["--probe", "true"]].concat(), &file).unwrap();
        assert!(asked.probe.is_some_and(|it| it.late == 15 * MINUTE));
    }
    // What is on this host knows nothing of what is sent elsewhere.
    for who in ["postfix", "exim"] {
        let asks = ["--probe", who, "--on-unknown", "probe"];
        let here = plan(&[&asks[..], &["--server", "localhost:25", "--tls", "none"]].concat(), "");
        assert!(here.unwrap().probe.is_some());
        for other in [&["--server", "192.0.2.1", "--tls", "none"][..], &["--provider", provider]] {
            let error = plan(&[&asks, other].concat(), "").err().unwrap();
            assert!(error.starts_with("--probe: postfix and exim"), "{error}");
        }
        let of_file = file.replace("exit 10", who).replace("absent = [10]", "");
        assert!(plan(&[], &of_file).unwrap().probe.is_some());
        let error = plan(&[], &of_file.replace("127.0.0.1", "192.0.2.1")).err().unwrap();
        assert!(error.starts_with("mail.toml:4:1"), "{error}");
    }
}

/// The safe direction needs no change of the file.
#[test]
fn a_flag_holds_what_the_file_would_ask_about() {
    let file = format!("{SERVER}[probe]\nwho = \"exit 10\"\n[policy]\non_unknown = \"probe\"\n");
    let held = plan(&["--on-unknown", "hold"], &file).unwrap();
    assert_eq!((held.probe, held.usual.asking), (None, None));
    // What a class says of its own stays.
    let class = format!("{file}[[class]]\nkeys = \"a\"\n[class.policy]\non_unknown = \"probe\"\n");
    let held = plan(&["--on-unknown", "hold"], &class).unwrap();
    assert!(held.usual.asking.is_none() && held.classes[0].rules.asking == held.probe);
    let named = plan(&["--on-unknown", "hold", "--probe", "true"], &file).err().unwrap();
    assert!(named.starts_with("--probe: ") && named.contains("nobody asks it"), "{named}");
}

fn page() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/config.md");
    let page = std::fs::read_to_string(path).unwrap();
    page.split("\n# ").find(|it| it.starts_with("Configuration of the sender")).unwrap().to_owned()
}

/// The settings of one table, as the reader knows them: it names them all where it meets another.
fn known(table: &str) -> BTreeSet<String> {
    let least = match table {
        "[server]" => "host = \"a\"",
        "[probe]" => "who = \"a\"",
        "[[class]]" => "keys = \"a\"",
        "[[destination]]" => "domains = []",
        _ => "",
    };
    let error = toml::from_str::<File>(&format!("{table}\n{least}\n\"?\" = 1")).err().unwrap();
    let names = error.message().split('`').skip(3).step_by(2);
    names
        .map(str::to_owned)
        .filter(|it| !["class", "destination", "policy", "probe", "server"].contains(&it.as_str()))
        .collect()
}

#[test]
fn the_page_names_each_setting_and_its_example_is_a_configuration() {
    let page = page();
    for table in ["", "[server]", "[probe]", "[policy]", "[[class]]", "[[destination]]"] {
        let head =
            if table.is_empty() { "| of all |".to_owned() } else { format!("| `{table}` |") };
        let rows = page.split(&*head).nth(1).unwrap_or_else(|| panic!("{head}"));
        let rows = rows.lines().skip(2).take_while(|it| it.starts_with('|'));
        let named: BTreeSet<String> =
            rows.map(|it| it.split('`').nth(1).unwrap().to_owned()).collect();
        assert_eq!(named, known(table), "{table}");
    }
    let example = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let flags = ["--server", "127.0.0.1", "--tls", "none", "--probe", "./find-mail"];
    let plan = plan(&flags, example).unwrap();
    assert_eq!((plan.classes.len(), plan.destinations.len()), (2, 1));
    assert!(plan.usual.asking.is_some() && plan.classes[0].rules.asking.is_none());
}
