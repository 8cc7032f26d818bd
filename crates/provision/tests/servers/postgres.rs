//! Roles and databases of a real PostgreSQL server, behind a relay that cuts the connection after
//! each number of bytes, either way. What is there is counted at the server.

use onlyonce_provision::{Became, Identity};
use onlyonce_testbed::{Postgres, Relay, Way};

use crate::site::{Site, ready};

/// A server that loses nothing here, since it is not killed.
fn server() -> Postgres {
    Postgres::start_with(&[("fsync", "off"), ("full_page_writes", "off")])
}

/// A role and a database that it owns, made through this port.
fn plan(port: u16, number: usize) -> String {
    let server = format!("server = \"postgres://postgres@127.0.0.1:{port}/postgres\"");
    format!(
        "name = \"shop\"\n\
         [[resource]]\nkey = \"role-{number}\"\nkind = \"postgres\"\ntimeout = \"5s\"\n{server}\n\
         password = \"it's a secret\"\ninputs = {{ role = \"app {number}\" }}\n\
         [[resource]]\nkey = \"db-{number}\"\nkind = \"postgres\"\ntimeout = \"5s\"\n{server}\n\
         inputs = {{ database = \"shop-{number}\", owner = \"${{role-{number}.id}}\" }}\n"
    )
}

/// What there is of both, with its comment and owner.
fn found(server: &Postgres, number: usize) -> String {
    let names = format!("rolname = 'app {number}'");
    let roles = server.sql(
        "postgres",
        &format!(
            "SELECT rolname, rolcanlogin, shobj_description(oid, 'pg_authid') FROM pg_roles WHERE \
             {names}"
        ),
    );
    let databases = server.sql(
        "postgres",
        &format!(
            "SELECT datname, pg_get_userbyid(datdba), shobj_description(oid, 'pg_database') FROM \
             pg_database WHERE datname = 'shop-{number}' OR datname LIKE 'onlyonce-%'"
        ),
    );
    format!("{roles}\n{databases}")
}

/// What is there when each was made once.
fn once(number: usize) -> String {
    let marker = |kind: &str| Identity::new("shop", &format!("{kind}-{number}"), 1).marker;
    let (role, database) = (marker("role"), marker("db"));
    format!("app {number}|t|{role}\nshop-{number}|app {number}|{database}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_the_connection_is_cut_there_is_one_role_and_one_database() {
    let server = server();
    let relay = Relay::to(server.address());
    let (mut number, mut unknown) = (0, 0);
    for way in [Way::ToServer, Way::ToClient] {
        // As many bytes as an apply that is not cut takes, and a step after.
        let (site, plan_of) = (Site::open(), |number| plan(relay.port(), number));
        let before = relay.passed(way);
        let all = site.apply(&plan_of(number)).await;
        assert_eq!(all.iter().map(Became::word).collect::<Vec<_>>(), ["ready", "ready"], "{all:?}");
        assert_eq!(found(&server, number), once(number));
        let whole = relay.passed(way) - before;
        let step = whole / 16;
        for cut in (1..=whole + step).step_by(step) {
            number += 1;
            let site = Site::open();
            relay.cut_after(way, cut);
            let first = site.apply(&plan_of(number)).await;
            relay.mend();
            unknown += first.iter().filter(|it| matches!(it, Became::Unknown(_))).count();
            let mut applies = 0;
            loop {
                let all = site.apply(&plan_of(number)).await;
                if all.iter().all(|it| matches!(it, Became::Ready(_))) {
                    break;
                }
                applies += 1;
                assert!(applies < 20, "{way:?} {cut}: {first:?}, {all:?}");
            }
            assert_eq!(found(&server, number), once(number), "{way:?} {cut}: {first:?}");
        }
        number += 1;
    }
    assert!(0 < unknown, "some were cut where nobody could know");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_ours_is_not_adopted_by_its_name_and_what_is_stays_when_the_store_is_lost() {
    let server = server();
    let (mut site, plan) = (Site::open(), plan(server.port(), 0));
    server.sql("postgres", "CREATE ROLE \"app 0\"; CREATE DATABASE \"shop-0\";");
    let all = site.apply(&plan).await;
    assert!(matches!(&all[0], Became::Conflict(text) if text.contains("without a comment")));
    assert_eq!(all[1], Became::Waits("role-0".into()));
    server.sql("postgres", "DROP ROLE \"app 0\"; COMMENT ON DATABASE \"shop-0\" IS 'bob''s';");
    let all = site.apply(&plan).await;
    assert!(matches!(&all[1], Became::Conflict(text) if text.contains("bob's")), "{all:?}");
    server.sql("postgres", "DROP DATABASE \"shop-0\";");
    let all = site.apply(&plan).await;
    assert_eq!((ready(&all[0]), ready(&all[1])), ("app 0", "shop-0"));
    site.lose_the_store();
    let all = site.apply(&plan).await;
    assert_eq!((ready(&all[0]), ready(&all[1])), ("app 0", "shop-0"));
    assert_eq!(found(&server, 0), once(0));
}

/// The state in which a kill leaves it: created under its marker, and not named yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_has_no_name_yet_gets_it_and_no_second_one_is_made() {
    let server = server();
    let (site, plan) = (Site::open(), plan(server.port(), 0));
    let marker = Identity::new("shop", "db-0", 1).marker;
    server.sql("postgres", &format!("CREATE DATABASE \"{marker}\";"));
    let oid = |name: &str| {
        server.sql("postgres", &format!("SELECT oid FROM pg_database WHERE datname = '{name}'"))
    };
    let unnamed = oid(&marker);
    let all = site.apply(&plan).await;
    assert_eq!((ready(&all[0]), ready(&all[1])), ("app 0", "shop-0"));
    assert_eq!(oid("shop-0"), unnamed);
    assert_eq!(found(&server, 0), once(0));
}
