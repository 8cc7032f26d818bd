//! A server shows a transaction to others before it is synced. What we tell of it must survive a
//! crash all the same.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;

use onlyonce_conformance::{block_on, claimed, id};
use onlyonce_core::{Floor, Timestamp};
use onlyonce_mysql::Mysql;
use onlyonce_store::{Store as _, Swap};
use onlyonce_testbed::{MariaDb as Server, until};

use crate::common::{claim, database, init, open};

/// Lets no sync of a server end until it is dropped.
struct Unsynced(Child);

impl Unsynced {
    fn at(server: &Server) -> Self {
        let process = server.server().id();
        // It ends with us, and lets the server go on then.
        let mut trace = Command::new("setpriv");
        trace.args(["--pdeathsig", "KILL", "--", "strace", "-f", "-qq", "-o", "/dev/null"]);
        trace.args(["-e", "trace=fsync,fdatasync", "-p", &process.to_string(), "-e"]);
        trace.arg("inject=fsync,fdatasync:delay_enter=600000000");
        let held = Self(trace.stdin(Stdio::null()).spawn().unwrap());
        until("all threads are held", || {
            let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
            let mut states =
                threads.filter_map(|it| fs::read_to_string(it.unwrap().path().join("status")).ok());
            states.all(|state| !state.contains("TracerPid:\t0\n")).then_some(())
        });
        held
    }
}

impl Drop for Unsynced {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_others_have_written_is_told_only_once_it_is_synced() {
    let mut server = Server::start();
    // Nothing in the background waits for a sync with a page or a table in its hands.
    for (setting, value) in [
        ("innodb_max_dirty_pages_pct", "99"),
        ("innodb_max_dirty_pages_pct_lwm", "99"),
        ("innodb_stats_persistent", "OFF"),
    ] {
        server.set(setting, value);
    }
    server.restart();
    let name = database(&server);
    init(&server, &name).unwrap();
    let [ours, other] = [(); 2].map(|()| open(&server, &name).unwrap());
    // Nothing has to be noted for what is smaller.
    claim(&ours, 50);
    assert_eq!(block_on(ours.get(id(50))).unwrap(), Some(claimed(50)));
    let number = |what: &str| -> u64 {
        let told = server.sql(&name, &format!("SHOW GLOBAL STATUS LIKE '{what}'"));
        told.split('\t').nth(1).unwrap().parse().unwrap()
    };
    let unsynced = Unsynced::at(&server);
    thread::scope(|scope| {
        // What it is told in the end is not what this is about.
        scope.spawn(|| drop(block_on(other.swap(id(2), None, Some(claimed(2))))));
        let seen = format!("SELECT COUNT(*) FROM onlyonce_records WHERE id = x'{}'", id(2));
        until("it is seen", || (server.sql(&name, &seen) == "1").then_some(()));
        let written = number("Innodb_lsn_current");
        assert!(number("Innodb_lsn_flushed") < written, "it is synced already");
        let asking = [
            scope.spawn(|| {
                let told = block_on(ours.swap(id(2), None, Some(claimed(3)))).unwrap();
                assert_eq!(told, Swap::Conflict(Some(claimed(2))));
                number("Innodb_lsn_flushed")
            }),
            scope.spawn(|| {
                assert_eq!(block_on(ours.get(id(2))).unwrap(), Some(claimed(2)));
                number("Innodb_lsn_flushed")
            }),
        ];
        let commits = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO = 'COMMIT'";
        until("all wait for it, or tell already", || {
            let tell = asking.iter().filter(|asking| asking.is_finished()).count();
            let wait: usize = server.sql(&name, commits).parse().unwrap();
            (3 <= tell + wait).then_some(())
        });
        drop(unsynced);
        for asking in asking {
            assert!(written <= asking.join().unwrap(), "it was told before it was synced");
        }
    });
}

/// Each time somebody is told of others something is written, but for a server that shows nothing
/// before it is synced: a binary log is, and what is in it is shown then.
#[test]
fn what_is_told_of_others_costs_a_write_only_where_the_server_shows_it_before_it_is_synced() {
    let mut server = Server::start();
    let name = database(&server);
    init(&server, &name).unwrap();
    let syncs = |server: &Server| -> u64 {
        server.sql(&name, "SELECT SUM(syncs) FROM onlyonce_revisions").parse().unwrap()
    };
    let store = open(&server, &name).unwrap();
    claim(&store, 1);
    // What it costs, and what it is told.
    let conflicts = |server: &Server, store: &Mysql| {
        let before = syncs(server);
        let told = block_on(store.swap(id(1), None, Some(claimed(2)))).unwrap();
        assert_eq!(told, Swap::Conflict(Some(claimed(1))));
        syncs(server) - before
    };
    let finds = |server: &Server, store: &Mysql| {
        let before = syncs(server);
        assert_eq!(block_on(store.get(id(1))).unwrap(), Some(claimed(1)));
        syncs(server) - before
    };
    // A swap is a write by itself.
    assert_eq!((conflicts(&server, &store), finds(&server, &store)), (2, 1));
    let before = syncs(&server);
    block_on(store.raise_floor(Floor::at(Timestamp::from_millis(5)))).unwrap();
    assert_eq!(syncs(&server), before + 1);
    drop(store);
    for (setting, value) in [("log_bin", "bin"), ("server_id", "1"), ("sync_binlog", "1")] {
        server.set(setting, value);
    }
    server.restart();
    let store = open(&server, &name).unwrap();
    assert_eq!((conflicts(&server, &store), finds(&server, &store)), (1, 0));
}
