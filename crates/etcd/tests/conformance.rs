//! etcd keeps what every store promises.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod common;

use std::sync::Mutex;

use onlyonce_conformance::{Damages, StoreBuilder, Tells};
use onlyonce_core::KeyId;
use onlyonce_etcd::Etcd;

use common::{claim, init, open, put, record_key, single};

/// A member that each builder starts, and that is killed and started again.
#[derive(Default)]
struct Servers(Mutex<Vec<onlyonce_testbed::Etcd>>);

impl StoreBuilder for Servers {
    type Store = Etcd;

    fn fresh(&self) -> Etcd {
        let server = onlyonce_testbed::Etcd::start();
        init(&single(&server));
        let store = open(&single(&server));
        self.0.lock().unwrap().push(server);
        store
    }

    /// The member is killed as well as the process that used it.
    fn after_crash(&self, store: Etcd) -> Etcd {
        drop(store);
        let mut servers = self.0.lock().unwrap();
        let server = servers.last_mut().unwrap();
        server.restart();
        open(&single(server))
    }
}

impl Damages for Servers {
    fn damage(&self, _store: &Etcd, id: KeyId) {
        let servers = self.0.lock().unwrap();
        put(servers.last().unwrap(), &record_key(id), b"\0\0\0\0\0\0\0\x07spoiled");
    }
}

impl Tells for Servers {
    fn beside(&self, _store: &Etcd) -> Etcd {
        open(&single(self.0.lock().unwrap().last().unwrap()))
    }
}

onlyonce_conformance::conformance_suite!(Servers::default());
onlyonce_conformance::durable_suite!(Servers::default());
onlyonce_conformance::damage_suite!(Servers::default());
onlyonce_conformance::notice_suite!(Servers::default());

/// Two stores with different prefixes share a cluster without seeing each other, even if one prefix
/// is the beginning of the other.
#[test]
fn stores_of_different_prefixes_do_not_see_each_other() {
    let server = onlyonce_testbed::Etcd::start();
    let urls = ["shop", "shop2"].map(|prefix| format!("{}&prefix={prefix}", single(&server)));
    urls.iter().for_each(|url| init(url));
    let [one, other] = urls.map(|url| open(&url));
    assert_ne!(one.secret().as_bytes(), other.secret().as_bytes());
    claim(&other, 1);
    assert_eq!(common::RUNTIME.block_on(other.count(None)).unwrap(), 1);
    assert_eq!(common::RUNTIME.block_on(one.count(None)).unwrap(), 0);
}
