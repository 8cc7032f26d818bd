//! `onlyonce keys`: seeing what is in doubt and settling it, while the proxy runs and while it does
//! not.

use std::os::unix::fs::PermissionsExt as _;

use onlyonce_core::{State, Timestamp};
use onlyonce_journal::{Journal, Settings};
use onlyonce_store::{Filter, Store as _};
use serde_json::Value;

use crate::caller::{Order, order};
use crate::process::{Folder, Proxy, Ran, onlyonce};
use crate::upstream::{Manner, Upstream};

/// An order that was counted, and then the connection was cut.
struct Doubt {
    upstream: Upstream,
    folder: Folder,
    /// `None` while it is stopped.
    proxy: Option<Proxy>,
    order: Order,
}

impl Doubt {
    fn arises(is_running: bool) -> Self {
        let (upstream, folder) = (Upstream::open(), Folder::with_store());
        let proxy = Proxy::start(&folder, &upstream);
        let order = order("tap").by("Bearer anna");
        upstream.manner(Manner::Cut);
        order.send(proxy.address).is_problem(502, "outcome-unknown");
        upstream.manner(Manner::Answer(0));
        order.send(proxy.address).is_problem(409, "outcome-unknown");
        assert_eq!(upstream.effects(), 1);
        let mut doubt = Self { upstream, folder, proxy: Some(proxy), order };
        if !is_running {
            doubt.proxy.take().unwrap().stop();
        }
        doubt
    }

    /// The proxy, started if it is stopped.
    fn proxy(&mut self) -> &Proxy {
        self.proxy.get_or_insert_with(|| Proxy::start(&self.folder, &self.upstream))
    }

    fn keys(&self, arguments: &[&str]) -> Ran {
        let store = self.folder.store();
        onlyonce(["keys"].iter().chain(arguments).chain(&["--store", &store]))
    }

    /// What is listed as unknown.
    fn unknown(&self) -> Vec<Value> {
        let listed = self.keys(&["list", "--state", "unknown", "--json"]).done();
        listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The id and the fence that are listed.
    fn listed(&self) -> (String, u64) {
        let [view] = &self.unknown()[..] else { panic!("{:?}", self.unknown()) };
        (view["id"].as_str().unwrap().to_owned(), view["fence"].as_u64().unwrap())
    }

    fn resolve(&self, id: &str, fence: u64, verdict: &[&str]) -> Ran {
        let fence = fence.to_string();
        let arguments = ["resolve", id, "--fence", &fence, "--why", "looked", "--by", "olga"];
        self.keys(&[&arguments[..], verdict].concat())
    }
}

/// Case B143.
#[test]
fn what_is_in_doubt_is_listed_and_shown_by_id_and_by_key() {
    for is_running in [true, false] {
        let doubt = Doubt::arises(is_running);
        let (id, fence) = doubt.listed();
        let table = doubt.keys(&["list"]).done();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 2, "{table}");
        assert!(lines[0].starts_with("ID "), "{table}");
        assert!(lines[1].starts_with(&format!("{id}  unknown  {fence}  1 ")), "{table}");

        let shown = doubt.keys(&["get", &id]).done();
        for line in [format!("id                {id}"), format!("fence             {fence}")] {
            assert!(shown.lines().any(|it| it == line), "{shown}");
        }
        let by_key = ["get", "--key", "tap", "-H", "Authorization: Bearer anna"];
        assert_eq!(doubt.keys(&by_key).done(), shown);

        let told = doubt.keys(&["get", "--key", "tap"]).failed(1);
        assert!(told.contains("there is no record"), "another caller's key is another: {told}");
        assert!(told.contains("under scope auto"), "{told}");
        // As a header has it, quotes and all.
        let quoted = ["get", "--key", "\"tap\"", "-H", "Authorization: Bearer anna"];
        assert_eq!(doubt.keys(&quoted).done(), shown);
        doubt.keys(&["get", "--key", "tap", "--scope", "mine"]).failed(2);
        doubt.keys(&["get", "nonsense"]).failed(2);
        assert_eq!(doubt.keys(&["list", "--state", "completed", "--json"]).done(), "");
        assert_eq!(doubt.upstream.effects(), 1);
    }
}

#[test]
fn what_was_answered_twice_is_on_the_list_of_alarms_once() {
    for is_running in [true, false] {
        let doubt = Doubt::arises(is_running);
        let (id, fence) = doubt.listed();
        assert_eq!(doubt.keys(&["list", "--alarm", "--json"]).done(), "");
        let first = doubt.folder.write("first.http", "HTTP/1.1 201 Created\n\norder 1");
        doubt.resolve(&id, fence, &["--happened", &first]).done();
        assert_eq!(doubt.keys(&["list", "--alarm", "--json"]).done(), "");
        let other = doubt.folder.write("other.http", "HTTP/1.1 201 Created\n\norder 2");
        for _again in 0..2 {
            let told = doubt.resolve(&id, fence, &["--happened", &other]).failed(1);
            assert!(told.contains("answered already, with another answer"), "{told}");
        }
        for arguments in [&["--limit", "1"][..], &["--state", "completed"]] {
            let listed = doubt.keys(&[&["list", "--alarm", "--json"], arguments].concat()).done();
            let [line] = &listed.lines().collect::<Vec<_>>()[..] else { panic!("{listed}") };
            let view: Value = serde_json::from_str(line).unwrap();
            assert_eq!((view["id"].as_str(), view["alarm"].as_bool()), (Some(&*id), Some(true)));
            let history = view["history"].as_array().unwrap();
            let events: Vec<_> = history.iter().map(|it| it["event"].as_str().unwrap()).collect();
            assert_eq!(events, ["resolved-happened", "second-reply"]);
        }
        assert_eq!(doubt.keys(&["list", "--alarm", "--state", "tombstone", "--json"]).done(), "");
        let shown = doubt.keys(&["get", &id]).done();
        assert!(shown.contains("\nalarm             another success"), "{shown}");
        assert!(doubt.keys(&["list"]).done().contains("; alarm: another answer came"));
        assert_eq!(doubt.upstream.effects(), 1);
    }
}

#[test]
fn a_wrong_fence_or_id_changes_nothing() {
    for is_running in [true, false] {
        let mut doubt = Doubt::arises(is_running);
        let (id, fence) = doubt.listed();
        let before = doubt.keys(&["get", &id]).done();
        let reply = doubt.folder.write("reply.http", "HTTP/1.1 200 OK\n\nfound");
        for (verdict, wrong) in [
            (&["--did-not-happen"][..], fence - 1),
            (&["--run-again"], fence + 1),
            (&["--happened", &reply], fence + 1),
        ] {
            let told = doubt.resolve(&id, wrong, verdict).failed(1);
            assert!(told.contains("onlyonce keys get"), "{told}");
            assert!(told.contains("nothing was changed"), "{told}");
        }
        let nobody = "0123456789abcdef0123456789abcdef";
        let told = doubt.resolve(nobody, fence, &["--did-not-happen"]).failed(1);
        assert!(told.contains("there is no record"), "{told}");
        doubt.resolve(&id, fence, &["--happened", "not/there.http"]).failed(2);
        let no_head = doubt.folder.write("no-head.http", "{\"charge\": \"ch_1\"}");
        let told = doubt.resolve(&id, fence, &["--happened", &no_head]).failed(2);
        assert!(told.contains("no-head.http") && told.contains("HTTP/1.1 201"), "{told}");
        doubt.resolve(&id, fence, &[]).failed(2);
        doubt.resolve(&id, fence, &["--did-not-happen", "--run-again"]).failed(2);

        assert_eq!(doubt.keys(&["get", &id]).done(), before);
        let (order, address) = (doubt.order.clone(), doubt.proxy().address);
        order.send(address).is_problem(409, "outcome-unknown");
        assert_eq!(doubt.upstream.effects(), 1);
    }
}

/// Cases B13 and B143.
#[test]
#[allow(clippy::disallowed_methods, reason = "the binary has the system's clock")]
fn an_operation_that_happened_is_answered_with_the_file_and_not_run() {
    for is_running in [true, false] {
        let mut doubt = Doubt::arises(is_running);
        let (id, fence) = doubt.listed();
        let text = "HTTP/1.1 201 Created\ncontent-type: application/json\nx-shop: found\n\n\
                    {\"charge\": \"ch_1\"}";
        let reply = doubt.folder.write("reply.http", text);
        // The second time is the same change again, as after a lost answer.
        let for_ever = ["--happened", &reply, "--retention", "1000000d"];
        assert!(doubt.resolve(&id, fence, &for_ever).failed(2).contains("--retention"));
        for _ in 0..2 {
            let verdict = ["--happened", &reply, "--retention", "7d"];
            let shown = doubt.resolve(&id, fence, &verdict).done();
            assert!(shown.contains("state             completed"), "{shown}");
            assert!(shown.contains("by olga: looked"), "{shown}");
            let until = shown.split_once("bytes kept until ").unwrap().1;
            let until = humantime::parse_rfc3339(until.lines().next().unwrap()).unwrap();
            let left = until.duration_since(std::time::SystemTime::now()).unwrap();
            assert_eq!(left.as_secs().div_ceil(24 * 60 * 60), 7, "{shown}");
        }
        let other = doubt.folder.write("other.http", "HTTP/1.1 200 OK\n\nother");
        doubt.resolve(&id, fence, &["--happened", &other]).failed(1);
        assert_eq!(doubt.unknown(), [Value::Null; 0]);

        let (order, address) = (doubt.order.clone(), doubt.proxy().address);
        let again = order.send(address);
        let kept = again.replayed();
        assert_eq!((kept.status, kept.shop.as_deref()), (201, Some("found")));
        assert_eq!(kept.body, b"{\"charge\": \"ch_1\"}");
        assert_eq!(again.header("content-type"), Some("application/json"));
        assert_eq!(doubt.upstream.effects(), 1);
    }
}

/// Cases B13 and B143.
#[test]
fn an_operation_that_did_not_happen_runs_exactly_once_more() {
    for is_running in [true, false] {
        for verdict in ["--did-not-happen", "--run-again"] {
            let mut doubt = Doubt::arises(is_running);
            let (id, fence) = doubt.listed();
            let shown = doubt.resolve(&id, fence, &[verdict]).done();
            assert!(shown.contains("by olga: looked"), "{verdict}: {shown}");
            assert_eq!(doubt.unknown(), [Value::Null; 0]);
            assert_eq!(doubt.upstream.effects(), 1, "settling runs nothing");

            let (order, address) = (doubt.order.clone(), doubt.proxy().address);
            let answer = order.send(address).ran();
            for _ in 0..2 {
                assert_eq!(order.send(address).replayed(), answer);
            }
            doubt.resolve(&id, fence, &[verdict]).failed(1);
            assert_eq!(order.send(address).replayed(), answer);
            assert_eq!(doubt.upstream.effects(), 2);
        }
    }
}

#[test]
fn only_the_owner_can_ask_a_running_proxy() {
    let (upstream, folder) = (Upstream::open(), Folder::with_store());
    let proxy = Proxy::start(&folder, &upstream);
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let socket = folder.journal().join("admin.sock");
    assert_eq!((mode(folder.journal()), mode(socket.clone())), (0o700, 0o600));
    assert_eq!(mode(folder.journal().join("secret")), 0o600);
    proxy.stop();
    assert!(!socket.exists());

    // What a kill leaves behind hinders nobody.
    Proxy::start(&folder, &upstream).kill();
    assert!(socket.exists());
    onlyonce(["keys", "list", "--store", &folder.store()]).done();
    let proxy = Proxy::start(&folder, &upstream);
    order("tap").send(proxy.address).ran();
    let listed = onlyonce(["keys", "list", "--json", "--store", &folder.store()]).done();
    assert_eq!(listed.lines().count(), 1, "{listed}");
}

#[test]
fn an_erased_answer_is_gone_and_the_operation_is_still_never_run_again() {
    for is_running in [true, false] {
        let mut doubt = Doubt::arises(is_running);
        let (unknown, _) = doubt.listed();
        let paid = order("paid").by("Bearer anna");
        let answer = paid.send(doubt.proxy().address).ran();
        assert_eq!(paid.send(doubt.proxy().address).replayed(), answer);
        if !is_running {
            doubt.proxy.take().unwrap().stop();
        }
        let named = ["--key", "paid", "-H", "Authorization: Bearer anna"];
        let erase = |doubt: &Doubt, named: &[&str]| {
            let why = ["--why", "ticket 4711", "--by", "olga"];
            doubt.keys(&[&["erase"], named, &why].concat())
        };
        // The second time is the same change again, as after a lost answer.
        for _ in 0..2 {
            let shown = erase(&doubt, &named).done();
            assert!(shown.contains("answered with 201; the answer was erased"), "{shown}");
            assert_eq!(shown.matches("erased by olga: ticket 4711").count(), 1, "{shown}");
        }
        let told = erase(&doubt, &[&unknown]).failed(1);
        assert!(told.contains("nobody knows whether it happened"), "{told}");
        assert!(erase(&doubt, &["--key", "never"]).failed(1).contains("there is no record"));

        let effects = doubt.upstream.effects();
        for _ in 0..2 {
            let told = paid.send(doubt.proxy().address);
            told.is_problem(410, "reply-not-kept");
            assert_eq!(told.says(), "gone");
        }
        assert_eq!(doubt.upstream.effects(), effects);
    }
}

#[test]
fn a_sealed_key_never_runs_and_one_that_ran_is_left_as_it_is() {
    for is_running in [true, false] {
        let doubt = Doubt::arises(is_running);
        let seal = |key: &str| doubt.keys(&["seal", "--key", key, "--why", "cancelled by phone"]);
        assert!(seal("later").done().contains("cancelled by phone"));
        let told = seal("later").done();
        assert!(told.contains("state             completed"), "{told}");
        let (id, _) = doubt.listed();
        let told = doubt.keys(&["seal", &id, "--why", "too late"]).failed(1);
        assert!(told.contains("nobody knows whether it happened"), "{told}");
        let effects = doubt.upstream.effects();
        let mut doubt = doubt;
        let told = order("later").send(doubt.proxy().address);
        told.is_problem(410, "key-sealed");
        assert_eq!(told.says(), "sealed");
        assert_eq!(doubt.upstream.effects(), effects);
    }
}

/// Case B143: while its holder is at work a key is shown with its holder, and is not freed.
#[test]
fn a_key_whose_holder_is_at_work_is_shown_and_cannot_be_freed() {
    let (upstream, folder) = (Upstream::open(), Folder::with_store());
    let proxy = Proxy::start(&folder, &upstream);
    upstream.manner(Manner::Hold);
    let begun = order("tap").begin(proxy.address);
    upstream.began("tap");
    let store = folder.store();
    let keys =
        |arguments: &[&str]| onlyonce(["keys"].iter().chain(arguments).chain(&["--store", &store]));
    let listed = keys(&["list", "--state", "in-flight", "--json"]).done();
    let view: Value = serde_json::from_str(listed.trim()).unwrap();
    let (id, fence) = (view["id"].as_str().unwrap(), view["fence"].to_string());
    let shown = keys(&["get", "--key", "tap"]).done();
    assert!(shown.contains(id) && shown.contains(&proxy.pid().to_string()), "{shown}");
    for verdict in ["--did-not-happen", "--run-again"] {
        let resolve = ["resolve", id, "--fence", &fence, verdict, "--why", "in a hurry"];
        let told = keys(&resolve).failed(1);
        assert!(told.contains("nothing was changed"), "{told}");
    }
    upstream.let_go();
    let answer = begun.answer().unwrap().ran();
    assert_eq!(order("tap").send(proxy.address).replayed(), answer);
    assert_eq!(upstream.effects(), 1);
}

#[test]
fn no_command_makes_a_key_forgotten_before_its_route_would() {
    let (upstream, folder) = (Upstream::open(), Folder::with_store());
    let config = "[policy]\nretention = \"1ms\"\nremember = \"forever\"\n";
    let config = folder.write("once.toml", config);
    let proxy = Proxy::start_with(&folder.store(), &upstream, &["--config", &config]);
    order("tap").send(proxy.address).ran();
    proxy.stop();
    // Its answer is over, so what this command finds it writes down; it is left as it is.
    let seal = ["keys", "seal", "--key", "tap", "--why", "cancelled", "--store", &folder.store()];
    onlyonce(seal).failed(1);

    let journal = Journal::open(&folder.journal(), Settings::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let page = runtime.block_on(journal.list(Filter::default(), None)).unwrap();
    journal.close();
    let [(_, record)] = &page.records[..] else { panic!("{page:?}") };
    let State::Tombstone { forget_at, .. } = record.state else { panic!("{record:?}") };
    assert_eq!(forget_at, Timestamp::MAX);
}
