//! A server shows a transaction to others before it is synced. What we tell of it must survive a
//! crash all the same.

use onlyonce_conformance::{block_on, claimed, id};
use onlyonce_core::{Floor, Timestamp};
use onlyonce_store::{Store as _, Swap};
use onlyonce_testbed::MariaDb as Server;

use crate::common::{claim, database, init, open};

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
    let conflict = || block_on(store.swap(id(1), None, Some(claimed(2)))).unwrap();
    assert_eq!(syncs(&server), 0);
    assert_eq!(conflict(), Swap::Conflict(Some(claimed(1))));
    assert_eq!(syncs(&server), 1);
    assert_eq!(block_on(store.get(id(1))).unwrap(), Some(claimed(1)));
    assert_eq!(syncs(&server), 2);
    block_on(store.raise_floor(Floor::at(Timestamp::from_millis(5)))).unwrap();
    assert_eq!(syncs(&server), 3);
    drop(store);
    for (setting, value) in [("log_bin", "bin"), ("server_id", "1"), ("sync_binlog", "1")] {
        server.set(setting, value);
    }
    server.restart();
    let store = open(&server, &name).unwrap();
    let before = syncs(&server);
    let again = block_on(store.swap(id(1), None, Some(claimed(2)))).unwrap();
    assert_eq!(again, Swap::Conflict(Some(claimed(1))));
    assert_eq!(block_on(store.get(id(1))).unwrap(), Some(claimed(1)));
    assert_eq!(syncs(&server), before);
}
