//! MariaDB keeps what every store promises.

use std::sync::{Arc, LazyLock, Mutex};

use onlyonce_conformance::{Damages, StoreBuilder};
use onlyonce_core::KeyId;
use onlyonce_mysql::Mysql;
use onlyonce_testbed::MariaDb as Server;

use crate::common::{database, init, open};

/// One for all cases that leave it alone; it ends with the process.
static SERVER: LazyLock<Arc<Mutex<Server>>> =
    LazyLock::new(|| Arc::new(Mutex::new(Server::start())));

/// A server, and the database of the newest store.
struct Servers {
    server: Arc<Mutex<Server>>,
    newest: Mutex<String>,
}

fn shared() -> Servers {
    Servers { server: Arc::clone(&SERVER), newest: Mutex::default() }
}

fn own() -> Servers {
    Servers { server: Arc::new(Mutex::new(Server::start())), newest: Mutex::default() }
}

impl StoreBuilder for Servers {
    type Store = Mysql;

    fn fresh(&self) -> Mysql {
        let server = self.server.lock().unwrap();
        let name = database(&server);
        init(&server, &name).unwrap();
        self.newest.lock().unwrap().clone_from(&name);
        open(&server, &name).unwrap()
    }

    fn after_crash(&self, store: Mysql) -> Mysql {
        let mut server = self.server.lock().unwrap();
        server.kill();
        drop(store);
        server.restart();
        open(&server, &self.newest.lock().unwrap()).unwrap()
    }

    fn has_clock(&self) -> bool {
        true
    }
}

impl Damages for Servers {
    fn damage(&self, _: &Mysql, id: KeyId) {
        let set = "UPDATE onlyonce_records SET record = INSERT(record, 9, 1, x'FF')";
        let spoil = format!("{set} WHERE id = x'{id}'");
        self.server.lock().unwrap().sql(&self.newest.lock().unwrap(), &spoil);
    }
}

onlyonce_conformance::conformance_suite!(shared());
onlyonce_conformance::durable_suite!(own());
onlyonce_conformance::damage_suite!(shared());
