//! PostgreSQL.

use std::time::Duration;

use onlyonce_conformance::transactions::{self, Ask, Counts, End, Remote, SCOPE, Told};
use onlyonce_core::{Fence, Floor, Key, OnUnknown, Policy, Reply, Scope, Secret, Timestamp};
use onlyonce_postgres::Postgres as Kept;
use onlyonce_sqlx::{
    Claimed, Refused, Request, TxError, TxErrorKind, claim, commit, complete, failed,
};
use onlyonce_store::Store;
use onlyonce_testbed::{Postgres as Server, Relay, Way, until};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool, Postgres, Transaction};

use crate::line::Cable;
use crate::page;
use crate::shop::{self, RUNTIME};

const LEVELS: [&str; 3] = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];

struct Shop {
    server: Server,
    store: Kept,
}

fn scope() -> Scope {
    Scope::new(SCOPE).unwrap()
}

impl Shop {
    const RECORDS: &str = "onlyonce.records";

    fn open() -> Self {
        let server = Server::start();
        server.sql("postgres", "CREATE DATABASE shop");
        let address = || server.url("shop").parse().unwrap();
        RUNTIME.block_on(Kept::init(address(), Floor::NONE)).unwrap();
        server.sql("shop", "CREATE TABLE orders (key text); CREATE TABLE visits (key text)");
        server.sql("shop", "CREATE TABLE stock (item text, free int)");
        server.sql("shop", "INSERT INTO stock VALUES ('blender', 3)");
        let store = RUNTIME.block_on(Kept::open(address())).unwrap();
        Self { server, store }
    }

    fn sql(&self, text: &str) -> String {
        self.server.sql("shop", text)
    }

    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        PgConnection::connect(&self.server.url("shop")).await
    }

    async fn begin<'c>(
        conn: &'c mut PgConnection,
        level: &str,
    ) -> Result<Transaction<'c, Postgres>, sqlx::Error> {
        let mut tx = conn.begin().await?;
        let level = AssertSqlSafe(format!("SET TRANSACTION ISOLATION LEVEL {level}"));
        sqlx::raw_sql(level).execute(&mut *tx).await?;
        Ok(tx)
    }
}

shop::shop!(Shop, Postgres, LEVELS);

impl Remote for Shop {
    type Line = Cable;

    fn line(&self, to_server: bool) -> Cable {
        let way = if to_server { Way::ToServer } else { Way::ToClient };
        Cable(Relay::to(self.server.address()), way)
    }

    async fn order_by(&self, line: &Cable, ask: Ask<'_>) -> Result<Told, TxError> {
        let url = format!("postgres://postgres@{}/shop", line.0.address());
        let connected = PgConnection::connect(&url).await;
        Self::ask(&mut connected.map_err(|error| failed(&error))?, ask).await
    }

    fn settle(&self) {}
}

onlyonce_conformance::transaction_suite!(|case| RUNTIME.block_on(case), Shop::open());
onlyonce_conformance::cut_suite!(|case| RUNTIME.block_on(case), Shop::open());

/// What is recorded here the functions of the store answer, under the same names.
#[test]
fn what_it_has_run_the_functions_in_sql_answer() {
    let shop = Shop::open();
    let told = RUNTIME.block_on(transactions::Shop::order(&shop, Ask::at(0, "7829")));
    let Ok(Told::Ran(content)) = told else { panic!("{told:?}") };
    let ask = "SELECT outcome, status, convert_from(content, 'UTF8') \
               FROM onlyonce.claim('orders', '7829', '7829')";
    assert_eq!(shop.sql(ask), format!("replay|201|{content}"));
}

/// The page's own function, twice.
#[test]
fn the_example_of_the_page_sells_one() {
    let (page, here) = (include_str!("../../../../docs/sqlx.md"), include_str!("page.rs"));
    let (_, example) = here.split_once("\n\n").unwrap();
    assert!(page.contains(&example.replace("pub(crate) ", "")), "the page has another example");
    let shop = Shop::open();
    RUNTIME.block_on(async {
        let options: PgConnectOptions = shop.server.url("shop").parse().unwrap();
        let pool: PgPool = PgPoolOptions::new().connect_with(options).await.unwrap();
        let first = page::order(&pool).await.unwrap();
        assert_eq!(page::order(&pool).await.unwrap(), first);
        pool.close().await;
    });
    assert_eq!(shop.server.sql("shop", "SELECT free FROM stock"), "2");
}

#[test]
fn every_outcome_has_its_name() {
    let shop = Shop::open();
    let (scope, key) = (scope(), Key::new("a").unwrap());
    let ask = async |content: &[u8], policy: Policy| {
        let mut conn = shop.connect().await.unwrap();
        let mut tx = conn.begin().await.unwrap();
        let told = claim(&mut tx, Request { scope: &scope, key: &key, content }, &policy).await;
        commit(tx).await.unwrap();
        told.unwrap()
    };
    let short = Policy { lease: Duration::from_millis(100), ..Policy::default() };
    let none = Policy { skew_max: Duration::ZERO, ..short };
    let retry = Policy { on_unknown: OnUnknown::Retry, ..none };
    assert!(matches!(RUNTIME.block_on(ask(b"one", none)), Claimed::Granted(_)));
    let loose = Policy { skew_max: Duration::from_secs(3600), ..none };
    assert_eq!(RUNTIME.block_on(ask(b"two", loose)), Claimed::Refused(Refused::Mismatch));
    let held = RUNTIME.block_on(ask(b"one", loose));
    assert!(matches!(held, Claimed::Refused(Refused::InFlight { .. })), "{held:?}");
    let unknown = until("its lease is over", || match RUNTIME.block_on(ask(b"one", none)) {
        Claimed::Refused(Refused::OutcomeUnknown { cause, .. }) => Some(cause),
        Claimed::Granted(_) | Claimed::Replay(_) | Claimed::Refused(_) => None,
    });
    assert_eq!(unknown, "lapsed");
    let Claimed::Granted(granted) = RUNTIME.block_on(ask(b"one", retry)) else {
        panic!("it is run again");
    };
    let large = Reply::kept(200, vec![0; (1 << 20) + 1]);
    let say = async |reply: &Reply| {
        let mut conn = shop.connect().await.unwrap();
        let mut tx = conn.begin().await.unwrap();
        granted.clone().complete(&mut tx, reply).await?;
        commit(tx).await
    };
    RUNTIME.block_on(say(&large)).unwrap();
    let gone = RUNTIME.block_on(ask(b"one", none));
    assert!(matches!(gone, Claimed::Refused(Refused::Gone { status: 200, .. })), "{gone:?}");
    // The same answer under the same fence is another order all the same.
    let error = RUNTIME.block_on(say(&large)).unwrap_err();
    assert_eq!(error.kind(), TxErrorKind::Fenced, "{error}");
}

/// The server would roll back, and answer the commit as if it were one.
#[test]
fn a_transaction_in_which_a_statement_has_failed_is_not_committed() {
    let shop = Shop::open();
    RUNTIME.block_on(async {
        let mut conn = shop.connect().await.unwrap();
        let mut tx = conn.begin().await.unwrap();
        let (scope, key) = (scope(), Key::new("failed").unwrap());
        let request = Request { scope: &scope, key: &key, content: b"" };
        let told = claim(&mut tx, request, &Policy::default()).await.unwrap();
        assert!(matches!(told, Claimed::Granted(_)));
        sqlx::query("SELECT 1 / 0").execute(&mut *tx).await.unwrap_err();
        let error = commit(tx).await.unwrap_err();
        assert_eq!(error.kind(), TxErrorKind::Again, "{error}");
    });
    assert_eq!(shop.server.sql("shop", "SELECT count(*) FROM onlyonce.records"), "0");
}

#[test]
fn a_server_without_the_functions_says_how_they_are_made() {
    let shop = Shop::open();
    shop.sql("DROP SCHEMA onlyonce CASCADE");
    let told = RUNTIME.block_on(transactions::Shop::order(&shop, Ask::at(0, "nowhere")));
    let error = told.unwrap_err();
    assert_eq!(error.kind(), TxErrorKind::NotExecuted);
    assert!(error.to_string().contains("onlyonce store functions"), "{error}");
}
