//! PostgreSQL keeps what every store promises.

use std::sync::{Arc, LazyLock, Mutex};

use onlyonce_conformance::{Damages, StoreBuilder, Tells};
use onlyonce_core::KeyId;
use onlyonce_postgres::Postgres;
use onlyonce_testbed::Postgres as Server;

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
    type Store = Postgres;

    fn fresh(&self) -> Postgres {
        let server = self.server.lock().unwrap();
        let name = database(&server);
        init(&server, &name).unwrap();
        self.newest.lock().unwrap().clone_from(&name);
        open(&server, &name).unwrap()
    }

    fn after_crash(&self, store: Postgres) -> Postgres {
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
    fn damage(&self, _: &Postgres, id: KeyId) {
        let set = "UPDATE onlyonce.records SET record = overlay(record placing '\\xFF' from 9)";
        let spoil = format!("{set} WHERE id = '\\x{id}'");
        self.server.lock().unwrap().sql(&self.newest.lock().unwrap(), &spoil);
    }
}

impl Tells for Servers {
    fn beside(&self, _: &Postgres) -> Postgres {
        open(&self.server.lock().unwrap(), &self.newest.lock().unwrap()).unwrap()
    }
}

onlyonce_conformance::conformance_suite!(shared());
onlyonce_conformance::durable_suite!(own());
onlyonce_conformance::damage_suite!(shared());
onlyonce_conformance::notice_suite!(shared());
