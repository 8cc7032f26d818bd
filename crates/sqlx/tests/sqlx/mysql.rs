//! MariaDB.

use std::time::Duration;

use onlyonce_conformance::transactions::{self, Ask, Counts, End, Remote, SCOPE, Told};
use onlyonce_core::{Fence, Floor, Key, Policy, Reply, Scope, Secret, Timestamp};
use onlyonce_mysql::Mysql;
use onlyonce_sqlx::{Claimed, Request, TxError, TxErrorKind, claim, commit, complete, failed};
use onlyonce_store::Store;
use onlyonce_testbed::{MariaDb as Server, Relay, Way, until};
use sqlx::{AssertSqlSafe, Connection as _, MySql, MySqlConnection, Transaction};

use crate::line::Cable;
use crate::shop::{self, RUNTIME};

const LEVELS: [&str; 4] = ["READ COMMITTED", "READ UNCOMMITTED", "REPEATABLE READ", "SERIALIZABLE"];

struct Shop {
    server: Server,
    store: Mysql,
}

impl Shop {
    const RECORDS: &str = "onlyonce_records";

    fn open() -> Self {
        let server = Server::start();
        server.sql("mysql", "CREATE DATABASE shop");
        let address = || server.url("shop").parse().unwrap();
        RUNTIME.block_on(Mysql::init(address(), Floor::NONE)).unwrap();
        server.sql("shop", "CREATE TABLE orders (name text); CREATE TABLE visits (name text)");
        let store = RUNTIME.block_on(Mysql::open(address())).unwrap();
        Self { server, store }
    }

    fn sql(&self, text: &str) -> String {
        self.server.sql("shop", text)
    }

    async fn connect(&self) -> Result<MySqlConnection, sqlx::Error> {
        MySqlConnection::connect(&self.server.url("shop")).await
    }

    async fn begin<'c>(
        conn: &'c mut MySqlConnection,
        level: &str,
    ) -> Result<Transaction<'c, MySql>, sqlx::Error> {
        let level = AssertSqlSafe(format!("SET TRANSACTION ISOLATION LEVEL {level}"));
        sqlx::raw_sql(level).execute(&mut *conn).await?;
        conn.begin().await
    }
}

shop::shop!(Shop, MySql, LEVELS);

impl Remote for Shop {
    type Line = Cable;

    fn line(&self, to_server: bool) -> Cable {
        let way = if to_server { Way::ToServer } else { Way::ToClient };
        Cable(Relay::to(self.server.address()), way)
    }

    async fn order_by(&self, line: &Cable, ask: Ask<'_>) -> Result<Told, TxError> {
        let url = format!("mysql://root@{}/shop", line.0.address());
        let connected = MySqlConnection::connect(&url).await;
        Self::ask(&mut connected.map_err(|error| failed(&error))?, ask).await
    }

    fn settle(&self) {
        let open = "SELECT COUNT(*) FROM information_schema.INNODB_TRX";
        until("nothing is open", || (self.sql(open) == "0").then_some(()));
    }
}

onlyonce_conformance::transaction_suite!(|case| RUNTIME.block_on(case), Shop::open());
onlyonce_conformance::cut_suite!(|case| RUNTIME.block_on(case), Shop::open());

/// What is recorded here the procedures of the store answer, under the same names.
#[test]
fn what_it_has_run_the_procedures_in_sql_answer() {
    let shop = Shop::open();
    let told = RUNTIME.block_on(transactions::Shop::order(&shop, Ask::at(0, "7829")));
    let Ok(Told::Ran(content)) = told else { panic!("{told:?}") };
    let ask = "START TRANSACTION; CALL onlyonce_claim('orders', '7829', '7829', NULL, @o, @f, @s, \
               @c, @w, @x); SELECT CONCAT_WS('|', @o, @s, @c); COMMIT";
    assert_eq!(shop.sql(ask), format!("replay|201|{content}"));
}

/// What follows a deadlock that was not heeded is in no transaction, and is not taken for one.
#[test]
fn a_transaction_that_has_ended_before_completes_nothing_and_is_not_committed() {
    let shop = Shop::open();
    RUNTIME.block_on(async {
        let mut conn = shop.connect().await.unwrap();
        let mut tx = Shop::begin(&mut conn, LEVELS[0]).await.unwrap();
        let (scope, key) = (Scope::new(SCOPE).unwrap(), Key::new("ended").unwrap());
        let request = Request { scope: &scope, key: &key, content: b"" };
        let told = claim(&mut tx, request, &Policy::default()).await.unwrap();
        let Claimed::Granted(granted) = told else { panic!("it is the first") };
        sqlx::raw_sql("ROLLBACK").execute(&mut *tx).await.unwrap();
        let error = granted.complete(&mut tx, &Reply::kept(201, "")).await.unwrap_err();
        assert_eq!(error.kind(), TxErrorKind::NotExecuted, "{error}");
        let error = commit(tx).await.unwrap_err();
        assert_eq!(error.kind(), TxErrorKind::Unknown, "{error}");
        assert!(error.to_string().contains("has ended before"), "{error}");
    });
    assert_eq!(shop.sql("SELECT COUNT(*) FROM onlyonce_records"), "0");
}

#[test]
fn a_server_without_the_procedures_says_how_they_are_made() {
    let shop = Shop::open();
    shop.sql("DROP PROCEDURE onlyonce_claim");
    let told = RUNTIME.block_on(transactions::Shop::order(&shop, Ask::at(0, "nowhere")));
    let error = told.unwrap_err();
    assert_eq!(error.kind(), TxErrorKind::NotExecuted);
    assert!(error.to_string().contains("onlyonce store functions"), "{error}");
}
