//! The same promises behind a pooler that gives out connections by the transaction.

use std::sync::LazyLock;

use onlyonce_conformance::StoreBuilder;
use onlyonce_postgres::Postgres;
use onlyonce_testbed::{PgBouncer, Postgres as Server};

use crate::common::{database, init_as, open_as};

static SERVER: LazyLock<(Server, PgBouncer)> = LazyLock::new(|| {
    let server = Server::start();
    let pooler = PgBouncer::before(&server);
    (server, pooler)
});

struct Pooled;

impl StoreBuilder for Pooled {
    type Store = Postgres;

    fn fresh(&self) -> Postgres {
        let (server, pooler) = &*SERVER;
        let url = pooler.url(&database(server));
        init_as(&url).unwrap();
        open_as(&url).unwrap()
    }

    fn after_crash(&self, _: Postgres) -> Postgres {
        panic!("a pooler keeps nothing; the server's own tests kill it")
    }

    fn has_clock(&self) -> bool {
        true
    }
}

onlyonce_conformance::conformance_suite!(Pooled);
