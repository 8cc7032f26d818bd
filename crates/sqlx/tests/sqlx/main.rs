//! Claims in a transaction of sqlx on a real server: what happens, happens with its record.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod page;

use std::sync::LazyLock;
use std::time::Duration;

use futures_util::future::join_all;
use onlyonce_core::{Floor, Key, OnUnknown, Policy, Reply, Scope};
use onlyonce_postgres::{Address, Postgres as Store};
use onlyonce_sqlx::{Claimed, Refused, Request, TxError, TxErrorKind, claim, commit, failed};
use onlyonce_testbed::{Postgres as Server, Relay, Way, until};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool};
use tokio::runtime::Runtime;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
});

struct Shop {
    server: Server,
    url: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Ran(String),
    Replayed(String),
    Refused(Refused),
}

fn scope() -> Scope {
    Scope::new("orders").unwrap()
}

impl Shop {
    fn open() -> Self {
        let server = Server::start();
        server.sql("postgres", "CREATE DATABASE shop");
        let url = server.url("shop");
        let address: Address = url.parse().unwrap();
        RUNTIME.block_on(Store::init(address, Floor::NONE)).unwrap();
        server.sql("shop", "CREATE TABLE orders (key text NOT NULL)");
        server.sql("shop", "CREATE TABLE stock (item text, free int)");
        server.sql("shop", "INSERT INTO stock VALUES ('blender', 3)");
        Self { server, url }
    }

    /// How many orders there are, and how many records that say so.
    fn counts(&self) -> (u64, u64) {
        let count = |table: &str| {
            self.server.sql("shop", &format!("SELECT count(*) FROM {table}")).parse().unwrap()
        };
        (count("orders"), count("onlyonce.records WHERE state = 3"))
    }

    async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    /// Orders until it is told something that is no error to be sent again after.
    async fn ordered(&self, level: &str, key: &str) -> Told {
        let mut conn = self.connect().await;
        for _ in 0..100 {
            match order(&mut conn, level, key).await {
                Ok(told) => return told,
                Err(error) => {
                    assert!(error.is_retryable() && !error.may_have_happened(), "{error}");
                }
            }
        }
        panic!("a hundred times in vain");
    }
}

/// Orders once, in a transaction of its own.
async fn order(conn: &mut PgConnection, level: &str, key: &str) -> Result<Told, TxError> {
    let lost = |error: sqlx::Error| failed(&error);
    let mut tx = conn.begin().await.map_err(lost)?;
    let level = AssertSqlSafe(format!("SET TRANSACTION ISOLATION LEVEL {level}"));
    sqlx::raw_sql(level).execute(&mut *tx).await.map_err(lost)?;
    let (scope, key) = (scope(), Key::new(key.to_owned()).unwrap());
    let request = Request { scope: &scope, key: &key, content: key.as_str().as_bytes() };
    let told = match claim(&mut tx, request, &Policy::default()).await? {
        Claimed::Granted(granted) => {
            // What it says is another each time.
            let sell = "INSERT INTO orders VALUES ($1) RETURNING gen_random_uuid()::text";
            let sell = sqlx::query_scalar::<_, String>(sell).bind(key.as_str());
            let content = sell.fetch_one(&mut *tx).await.map_err(lost)?;
            granted.complete(&mut tx, &Reply::kept(201, content.clone())).await?;
            Told::Ran(content)
        }
        Claimed::Replay(reply) => {
            Told::Replayed(String::from_utf8(reply.content().unwrap().to_vec()).unwrap())
        }
        Claimed::Refused(why) => Told::Refused(why),
    };
    commit(tx).await?;
    Ok(told)
}

#[test]
fn fifty_at_once_with_one_key_run_it_once_and_all_get_its_answer() {
    let shop = Shop::open();
    for (at, level) in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"].iter().enumerate() {
        let callers = (0..50).map(|_| shop.ordered(level, level));
        let told = RUNTIME.block_on(join_all(callers));
        let ran: Vec<&String> = told
            .iter()
            .filter_map(|told| match told {
                Told::Ran(content) => Some(content),
                Told::Replayed(_) | Told::Refused(_) => None,
            })
            .collect();
        assert_eq!(ran.len(), 1, "{told:?}");
        let replayed = Told::Replayed(ran[0].clone());
        assert_eq!(told.iter().filter(|it| **it == replayed).count(), 49, "{told:?}");
        let orders = at as u64 + 1;
        assert_eq!(shop.counts(), (orders, orders));
    }
}

/// What is recorded here the functions of the store answer, under the same names.
#[test]
fn what_it_has_run_the_functions_in_sql_answer() {
    let shop = Shop::open();
    let Told::Ran(content) = RUNTIME.block_on(shop.ordered("READ COMMITTED", "7829")) else {
        panic!("it is the first");
    };
    let ask = "SELECT outcome, status, convert_from(content, 'UTF8') \
               FROM onlyonce.claim('orders', '7829', '7829')";
    assert_eq!(shop.server.sql("shop", ask), format!("replay|201|{content}"));
}

/// The page's own function, twice.
#[test]
fn the_example_of_the_page_sells_one() {
    let (page, here) = (include_str!("../../../../docs/sqlx.md"), include_str!("page.rs"));
    let (_, example) = here.split_once("\n\n").unwrap();
    assert!(page.contains(&example.replace("pub(crate) ", "")), "the page has another example");
    let shop = Shop::open();
    RUNTIME.block_on(async {
        let options: PgConnectOptions = shop.url.parse().unwrap();
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
        let mut conn = shop.connect().await;
        let mut tx = conn.begin().await.unwrap();
        let told = claim(&mut tx, Request { scope: &scope, key: &key, content }, &policy).await;
        commit(tx).await.unwrap();
        told.unwrap()
    };
    let short = Policy { lease: Duration::from_millis(100), ..Policy::default() };
    let none = Policy { skew_max: Duration::ZERO, ..short };
    let retry = Policy { on_unknown: OnUnknown::Retry, ..none };
    assert!(matches!(RUNTIME.block_on(ask(b"one", none)), Claimed::Granted(_)));
    assert_eq!(RUNTIME.block_on(ask(b"two", none)), Claimed::Refused(Refused::Mismatch));
    let loose = Policy { skew_max: Duration::from_secs(3600), ..none };
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
        let mut conn = shop.connect().await;
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

/// The connection is cut after every few bytes that go either way, the commit and its answer among
/// them. Whoever was cut off asks again.
#[test]
fn a_connection_that_is_cut_anywhere_leaves_the_order_and_its_record_or_neither() {
    let shop = Shop::open();
    let (mut whole, mut unknown) = (0, 0);
    for way in [Way::ToServer, Way::ToClient] {
        let relay = Relay::to(shop.server.address());
        let url = format!("postgres://postgres@{}/shop", relay.address());
        let try_once = |key: String| -> Result<Told, TxError> {
            RUNTIME.block_on(async {
                let connected = PgConnection::connect(&url).await;
                let mut conn = connected.map_err(|error| failed(&error))?;
                order(&mut conn, "READ COMMITTED", &key).await
            })
        };
        let before = relay.passed(way);
        try_once(format!("{way:?}-all")).unwrap();
        let bytes = relay.passed(way) - before;
        whole += 1;
        for left in (0..=bytes).rev().step_by(bytes / 11) {
            let key = format!("{way:?}-{left}");
            relay.mend();
            relay.cut_after(way, left.max(1));
            let first = try_once(key.clone());
            let counts = shop.counts();
            assert_eq!(counts.0, counts.1, "{key}: {first:?}");
            match &first {
                Ok(_) => assert_eq!(counts.0, whole + 1, "{key}"),
                Err(error) if error.may_have_happened() => unknown += 1,
                Err(_) => assert_eq!(counts.0, whole, "{key}: {first:?}"),
            }
            let second = RUNTIME.block_on(shop.ordered("READ COMMITTED", &key));
            let ran = matches!(second, Told::Ran(_));
            assert_eq!(ran, counts.0 == whole, "{key}: {first:?}, then {second:?}");
            whole += 1;
            assert_eq!(shop.counts(), (whole, whole), "{key}");
        }
    }
    assert!(0 < unknown, "no answer to a commit was lost");
}

/// The server would roll back, and answer the commit as if it were one.
#[test]
fn a_transaction_in_which_a_statement_has_failed_is_not_committed() {
    let shop = Shop::open();
    RUNTIME.block_on(async {
        let mut conn = shop.connect().await;
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
    shop.server.sql("shop", "DROP SCHEMA onlyonce CASCADE");
    let told = RUNTIME.block_on(async {
        let mut conn = shop.connect().await;
        order(&mut conn, "READ COMMITTED", "nowhere").await.unwrap_err()
    });
    assert_eq!(told.kind(), TxErrorKind::NotExecuted);
    assert!(told.to_string().contains("onlyonce store functions"), "{told}");
}
