//! A step more than this program has, taken on a real server.

use futures_util::future::join;
use onlyonce_conformance::{claimed, id};
use onlyonce_core::Floor;
use onlyonce_store::OpenErrorKind::{Newer, Older};
use onlyonce_store::{Store as _, Swap};
use onlyonce_testbed::{Postgres as Server, until};
use tokio::runtime::Runtime;

use super::*;

const WIDER: [&str; 3] = [
    schema::STEPS[0],
    schema::STEPS[1],
    "ALTER TABLE onlyonce.records ADD COLUMN note text;
     ALTER TABLE onlyonce.revisions ADD COLUMN note text",
];
const NOTES: &str = "SELECT count(*) FROM information_schema.columns \
                     WHERE table_schema = 'onlyonce' AND column_name = 'note'";
const VERSION: &str = "SELECT version FROM onlyonce.store";

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A server with a store in its database `postgres`.
async fn store() -> (Server, Address) {
    let server = Server::start();
    let address: Address = server.url("postgres").parse().unwrap();
    Postgres::init(address.clone(), Floor::NONE).await.unwrap();
    (server, address)
}

async fn take(address: Address, steps: &[&str]) -> Result<Formats, OpenError> {
    let way = Way::to(address);
    let mut client = way.connect().await?;
    migrate(&mut client, &way, steps).await
}

/// What a program of these steps says of the store at its door.
async fn at_the_door(address: Address, steps: &[&str]) -> Result<(), OpenError> {
    let way = Way::to(address);
    let found = look(&way.connect().await?, &way).await?.found;
    let known = i64::try_from(steps.len()).unwrap();
    Formats { found, known }.look(&mut Checks::at(&*way.place))
}

#[test]
fn an_older_store_takes_what_it_lacks_once_and_keeps_its_records() {
    runtime().block_on(async {
        let (server, address) = store().await;
        let open = Postgres::open(address.clone()).await.unwrap();
        assert_eq!(open.swap(id(1), None, Some(claimed(1))).await, Ok(Swap::Done));
        let older = at_the_door(address.clone(), &WIDER).await.unwrap_err();
        assert_eq!(older.kind(), Older);
        assert!(older.to_string().contains("onlyonce store migrate"), "{older}");

        let took = take(address.clone(), &WIDER).await;
        assert_eq!(took, Ok(Formats { found: 2, known: 3 }));
        let sql = |text: &str| server.sql("postgres", text);
        assert_eq!((&*sql(VERSION), &*sql(NOTES)), ("3", "2"));
        assert_eq!(at_the_door(address.clone(), &WIDER).await, Ok(()));
        let again = take(address.clone(), &WIDER).await.unwrap();
        assert!(again.is_newest());
        assert_eq!(sql("SELECT count(*) FROM onlyonce.records"), "1");
        // Who has it open still is refused at its next connection.
        let older = open.get(id(1)).await.unwrap_err();
        assert!(older.to_string().contains("use a newer onlyonce"), "{older}");

        for refused in [
            Postgres::open(address.clone()).await.err().unwrap(),
            Postgres::migrate(address).await.unwrap_err(),
        ] {
            assert_eq!(refused.kind(), Newer);
            assert!(refused.to_string().contains("use a newer onlyonce"), "{refused}");
        }
        assert_eq!(sql(VERSION), "3");
    });
}

#[test]
fn whoever_is_killed_in_between_has_changed_nothing_and_saying_it_again_does_it() {
    runtime().block_on(async {
        let (mut server, address) = store().await;
        let way = Way::to(address.clone());
        let mut other = way.connect().await.unwrap();
        let holds = other.transaction().await.unwrap();
        holds.batch_execute("SELECT revision FROM onlyonce.revisions").await.unwrap();
        let taking = tokio::spawn(take(address.clone(), &WIDER));
        let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        until("it waits for the second table", || {
            (server.sql("postgres", waits) == "1").then_some(())
        });
        server.kill();
        assert_eq!(taking.await.unwrap().unwrap_err().kind(), Unavailable);
        server.restart();
        assert_eq!(server.sql("postgres", VERSION), "2");
        assert_eq!(server.sql("postgres", NOTES), "0");
        assert!(Postgres::open(address.clone()).await.is_ok());
        assert_eq!(take(address, &WIDER).await, Ok(Formats { found: 2, known: 3 }));
        assert_eq!(server.sql("postgres", NOTES), "2");
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
        assert_eq!(server.sql("postgres", NOTES), "2");
    });
}

#[test]
fn who_does_not_own_the_tables_is_told_who_may_and_what_is_new_must_be_granted() {
    const MORE: [&str; 4] =
        [WIDER[0], WIDER[1], WIDER[2], "CREATE TABLE onlyonce.notes (note text)"];
    runtime().block_on(async {
        let (server, address) = store().await;
        let app = "CREATE ROLE app LOGIN; GRANT USAGE ON SCHEMA onlyonce TO app;
                   GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA onlyonce TO app";
        server.sql("postgres", app);
        let url = server.url("postgres").replace("postgres@", "app@");
        let as_app: Address = url.parse().unwrap();
        let refused = take(as_app.clone(), &WIDER).await.unwrap_err();
        assert_eq!(refused.kind(), Refused);
        assert!(refused.to_string().contains("GRANT the role that owns them"), "{refused}");
        assert_eq!(server.sql("postgres", VERSION), "2");

        take(address.clone(), &WIDER).await.unwrap();
        assert_eq!(at_the_door(as_app.clone(), &WIDER).await, Ok(()));
        assert!(take(as_app.clone(), &WIDER).await.unwrap().is_newest());
        take(address, &MORE).await.unwrap();
        let refused = at_the_door(as_app, &MORE).await.unwrap_err();
        assert!(refused.to_string().contains("onlyonce.notes: GRANT SELECT"), "{refused}");
    });
}

#[test]
fn functions_of_another_program_are_made_anew_and_its_own_are_left() {
    runtime().block_on(async {
        let (server, address) = store().await;
        let renew = || Postgres::renew_functions(address.clone());
        assert_eq!(renew().await, Ok(false));
        for older in [
            "COMMENT ON FUNCTION onlyonce.claim IS NULL",
            "DROP FUNCTION onlyonce.complete",
            "DROP SEQUENCE onlyonce.noted",
        ] {
            server.sql("postgres", older);
            let (one, other) = join(renew(), renew()).await;
            assert!(one.unwrap() || other.unwrap(), "{older}");
            assert_eq!(renew().await, Ok(false), "{older}");
        }
        let claim = "SELECT outcome FROM onlyonce.claim('shop', 'one', '')";
        assert_eq!(server.sql("postgres", claim), "granted");
    });
}

/// A store of the first format had no function that swaps.
#[test]
fn a_store_of_the_first_format_is_refused_until_it_was_migrated_and_written_to_then() {
    runtime().block_on(async {
        let (server, address) = store().await;
        let sql = "UPDATE onlyonce.store SET version = 1; DROP FUNCTION onlyonce._swap";
        server.sql("postgres", sql);
        let older = Postgres::open(address.clone()).await.err().unwrap();
        assert_eq!(older.kind(), Older);
        assert!(older.to_string().contains("onlyonce store migrate"), "{older}");
        let took = Postgres::migrate(address.clone()).await;
        assert_eq!(took, Ok(Formats { found: 1, known: 2 }));
        let open = Postgres::open(address).await.unwrap();
        assert_eq!(open.swap(id(1), None, Some(claimed(1))).await, Ok(Swap::Done));
    });
}
