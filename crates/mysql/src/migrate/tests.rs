//! A step more than this program has, taken on a real server.

use futures_util::future::join;
use onlyonce_conformance::{claimed, id};
use onlyonce_core::Floor;
use onlyonce_store::OpenErrorKind::{Newer, Older};
use onlyonce_store::{Store as _, Swap};
use onlyonce_testbed::{MariaDb as Server, until};
use tokio::runtime::Runtime;

use super::*;

const WIDER: [&[&str]; 3] = [
    schema::STEPS[0],
    schema::STEPS[1],
    &[
        "ALTER TABLE onlyonce_records ADD COLUMN IF NOT EXISTS note text",
        "ALTER TABLE onlyonce_revisions ADD COLUMN IF NOT EXISTS note text",
    ],
];
const NOTES: &str = "SELECT COUNT(*) FROM information_schema.COLUMNS \
                     WHERE TABLE_SCHEMA = 'shop' AND COLUMN_NAME = 'note'";
const VERSION: &str = "SELECT version FROM onlyonce_store";

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A server with a store in its database `shop`.
async fn store() -> (Server, Address) {
    let server = Server::start();
    server.sql("mysql", "CREATE DATABASE shop");
    let address: Address = server.url("shop").parse().unwrap();
    Mysql::init(address.clone(), Floor::NONE).await.unwrap();
    (server, address)
}

async fn take(address: Address, steps: &[&[&str]]) -> Result<Formats, OpenError> {
    let way = Way::to(address);
    let mut conn = way.connect().await?;
    let done = migrate(&mut conn, &way, steps).await;
    let _ = conn.disconnect().await;
    done
}

/// What a program of these steps says of the store at its door.
async fn at_the_door(address: Address, steps: &[&[&str]]) -> Result<(), OpenError> {
    let way = Way::to(address);
    let found = look(&mut way.connect().await?, &way).await?.found;
    let known = i64::try_from(steps.len()).unwrap();
    Formats { found, known }.look(&mut Checks::at(&*way.place))
}

#[test]
fn an_older_store_takes_what_it_lacks_once_and_keeps_its_records() {
    runtime().block_on(async {
        let (server, address) = store().await;
        let open = Mysql::open(address.clone()).await.unwrap();
        assert_eq!(open.swap(id(1), None, Some(claimed(1))).await, Ok(Swap::Done));
        let older = at_the_door(address.clone(), &WIDER).await.unwrap_err();
        assert_eq!(older.kind(), Older);
        assert!(older.to_string().contains("onlyonce store migrate"), "{older}");

        let took = take(address.clone(), &WIDER).await;
        assert_eq!(took, Ok(Formats { found: 2, known: 3 }));
        let sql = |text: &str| server.sql("shop", text);
        assert_eq!((&*sql(VERSION), &*sql(NOTES)), ("3", "2"));
        assert_eq!(at_the_door(address.clone(), &WIDER).await, Ok(()));
        let again = take(address.clone(), &WIDER).await.unwrap();
        assert!(again.is_newest());
        assert_eq!(sql("SELECT count(*) FROM onlyonce_records"), "1");
        // Who has it open still is refused at its next connection.
        let older = open.get(id(1)).await.unwrap_err();
        assert!(older.to_string().contains("use a newer onlyonce"), "{older}");

        for refused in [
            Mysql::open(address.clone()).await.err().unwrap(),
            Mysql::migrate(address).await.unwrap_err(),
        ] {
            assert_eq!(refused.kind(), Newer);
            assert!(refused.to_string().contains("use a newer onlyonce"), "{refused}");
        }
        assert_eq!(sql(VERSION), "3");
    });
}

/// The first format had no column for what a statement of many rows expects.
#[test]
fn a_store_of_the_first_format_is_brought_to_this_one_and_goes_on() {
    runtime().block_on(async {
        let (server, address) = store().await;
        let open = Mysql::open(address.clone()).await.unwrap();
        assert_eq!(open.swap(id(1), None, Some(claimed(1))).await, Ok(Swap::Done));
        drop(open);
        server.sql("shop", "ALTER TABLE onlyonce_records DROP COLUMN expected");
        server.sql("shop", "UPDATE onlyonce_store SET version = 1");
        let older = Mysql::open(address.clone()).await.err().unwrap();
        assert_eq!(older.kind(), Older);
        for found in [1, 2] {
            let took = Mysql::migrate(address.clone()).await;
            assert_eq!(took, Ok(Formats { found, known: 2 }));
        }
        let open = Mysql::open(address).await.unwrap();
        assert_eq!(open.get(id(1)).await, Ok(Some(claimed(1))));
        let next = (2..10).map(|it| open.swap(id(it), None, Some(claimed(it))));
        let done = futures_util::future::join_all(next).await;
        assert!(done.iter().all(|it| *it == Ok(Swap::Done)), "{done:?}");
    });
}

/// The server keeps what the first statement has done.
#[test]
fn whoever_is_killed_in_between_leaves_the_format_and_saying_it_again_goes_on() {
    runtime().block_on(async {
        let (mut server, address) = store().await;
        let way = Way::to(address.clone());
        let mut other = way.connect().await.unwrap();
        other.query_drop("START TRANSACTION").await.unwrap();
        other.query_drop("SELECT revision FROM onlyonce_revisions").await.unwrap();
        let taking = tokio::spawn(take(address.clone(), &WIDER));
        let waits = "SELECT COUNT(*) FROM information_schema.PROCESSLIST \
                     WHERE STATE LIKE 'Waiting for table metadata lock'";
        until("it waits for the second table", || (server.sql("shop", waits) == "1").then_some(()));
        server.kill();
        assert_eq!(taking.await.unwrap().unwrap_err().kind(), Unavailable);
        server.restart();
        assert_eq!(server.sql("shop", VERSION), "2");
        assert_eq!(server.sql("shop", NOTES), "1");
        // Who goes by the old format goes on until it was raised.
        let open = Mysql::open(address.clone()).await.unwrap();
        assert_eq!(open.swap(id(1), None, Some(claimed(1))).await, Ok(Swap::Done));
        assert_eq!(take(address, &WIDER).await, Ok(Formats { found: 2, known: 3 }));
        assert_eq!(server.sql("shop", NOTES), "2");
    });
}

#[test]
fn of_two_at_once_one_does_it_and_the_other_finds_it_done() {
    runtime().block_on(async {
        let (server, address) = store().await;
        let (one, other) = join(take(address.clone(), &WIDER), take(address, &WIDER)).await;
        let mut found = [one.unwrap().found, other.unwrap().found];
        found.sort_unstable();
        assert_eq!(found, [2, 3]);
        assert_eq!(server.sql("shop", NOTES), "2");
    });
}

#[test]
fn who_may_not_change_the_tables_is_told_the_grant() {
    runtime().block_on(async {
        let (server, address) = store().await;
        server.sql("shop", "CREATE USER app");
        for table in ["records", "revisions", "store"] {
            let rights = "SELECT, INSERT, UPDATE, DELETE";
            server.sql("shop", &format!("GRANT {rights} ON onlyonce_{table} TO app"));
        }
        let as_app: Address = server.url("shop").replace("root@", "app@").parse().unwrap();
        let refused = take(as_app.clone(), &WIDER).await.unwrap_err();
        assert_eq!(refused.kind(), Refused, "{refused}");
        assert!(refused.to_string().contains("GRANT CREATE, ALTER"), "{refused}");
        assert_eq!(server.sql("shop", VERSION), "2");

        take(address, &WIDER).await.unwrap();
        assert_eq!(at_the_door(as_app.clone(), &WIDER).await, Ok(()));
        assert!(take(as_app, &WIDER).await.unwrap().is_newest());
    });
}

#[test]
fn procedures_of_another_program_are_made_anew_and_its_own_are_left() {
    runtime().block_on(async {
        let (server, address) = store().await;
        let renew = || Mysql::renew_procedures(address.clone());
        assert_eq!(renew().await, Ok(false));
        for older in
            ["ALTER PROCEDURE onlyonce_claim COMMENT ''", "DROP PROCEDURE onlyonce_complete"]
        {
            server.sql("shop", older);
            let (one, other) = join(renew(), renew()).await;
            assert!(one.unwrap() || other.unwrap(), "{older}");
            assert_eq!(renew().await, Ok(false), "{older}");
        }
    });
}
