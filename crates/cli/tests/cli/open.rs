//! `onlyonce store copy --at-rest`, and `store spread`, while a program's own transaction is open
//! on the store.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use onlyonce_testbed::{MariaDb, Postgres};

use crate::process::{Folder, Ran, onlyonce, until};

fn copy(from: &str, to: &str) -> Ran {
    onlyonce(["store", "copy", "--at-rest", from, to])
}

/// Does it when it is dropped, also by an assertion that fails.
struct Then<F: Fn()>(F);

impl<F: Fn()> Drop for Then<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Says it in a session of its own until `meanwhile` is over, and then ends the session. What the
/// session came to, which is an error.
fn while_open(say: impl Fn() -> String + Sync, end: impl Fn(), meanwhile: impl FnOnce()) -> String {
    thread::scope(|scope| {
        let saying = scope.spawn(|| catch_unwind(AssertUnwindSafe(&say)));
        let ends = Then(end);
        meanwhile();
        drop(ends);
        match saying.join().unwrap() {
            Ok(out) => panic!("it has ended by itself: {out}"),
            Err(error) => error.downcast_ref::<String>().cloned().unwrap_or_default(),
        }
    })
}

#[test]
fn a_store_on_which_a_claim_may_be_committed_yet_is_not_copied() {
    let (folder, server) = (Folder::empty(), Postgres::start());
    let from = server.url("postgres");
    let to = format!("sqlite:{}", folder.path("to.db").display());
    onlyonce(["store", "init", "--first", "--store", &from]).done();
    // A role that sees nothing of others' sessions sees what they hold.
    let app = "CREATE ROLE app LOGIN; GRANT USAGE ON SCHEMA onlyonce TO app;
               GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA onlyonce TO app";
    server.sql("postgres", app);
    let claims = "BEGIN; SELECT outcome FROM onlyonce.claim('shop', 'order', '');
                  SELECT pg_sleep(600)";
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE wait_event = 'PgSleep'";
    let ended = while_open(
        || server.sql("postgres", claims),
        || drop(server.sql("postgres", end)),
        || {
            let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
            until("it is open", || (server.sql("postgres", sleeps) == "1").then_some(()));
            for role in ["postgres@", "app@"] {
                let said = copy(&from.replace("postgres@", role), &to).failed(1);
                assert!(said.contains("transactions are open that have used it"), "{said}");
                assert!(said.contains("of postgres (psql)"), "{said}");
            }
            // Nor does the store become a member of a set.
            let set = folder.path("stores");
            std::fs::write(&set, &from).unwrap();
            let set = format!("spread:{}", set.display());
            let said = onlyonce(["store", "spread", "--at-rest", "--store", &set]).failed(1);
            assert!(said.contains("transactions are open that have used it"), "{said}");
        },
    );
    assert!(ended.contains("terminating connection"), "{ended}");
    assert!(!folder.path("to.db").exists(), "nothing was begun");
    copy(&from, &to).done();
}

#[test]
fn in_mariadb_too_and_who_cannot_see_it_is_told_so() {
    let (folder, server) = (Folder::empty(), MariaDb::start());
    server.sql("mysql", "CREATE DATABASE shop; CREATE USER app@'127.0.0.1'");
    let from = server.url("shop");
    let to = |name: &str| format!("sqlite:{}", folder.path(name).display());
    onlyonce(["store", "init", "--first", "--store", &from]).done();
    let rights = "GRANT SELECT, INSERT, UPDATE, DELETE ON shop.* TO app@'127.0.0.1'";
    server.sql("mysql", rights);
    let claims = "START TRANSACTION; CALL onlyonce_claim('shop', 'order', '', NULL, @o, @f, @s, \
                  @c, @w, @x); DO SLEEP(600)";
    let sleeps = "SELECT ID FROM information_schema.PROCESSLIST WHERE STATE = 'User sleep'";
    let session = || Some(server.sql("shop", sleeps)).filter(|id| !id.is_empty());
    let refused = |to: &str| {
        let said = copy(&from, to).failed(1);
        assert!(said.contains("transactions are open that have used it"), "{said}");
    };
    let ended = while_open(
        || server.sql("shop", claims),
        || session().into_iter().for_each(|id| drop(server.sql("shop", &format!("KILL {id}")))),
        || {
            until("it is open", session);
            refused(&to("a.db"));
        },
    );
    assert!(!ended.is_empty());
    let held = "SELECT COUNT(*) FROM information_schema.INNODB_TRX";
    until("it is undone", || (server.sql("shop", held) == "0").then_some(()));
    // One that was prepared outlives its session.
    let prepares = "XA START 'one'; CALL onlyonce_claim('shop', 'order', '', NULL, @o, @f, @s, \
                    @c, @w, @x); XA END 'one'; XA PREPARE 'one'";
    server.sql("shop", prepares);
    refused(&to("a.db"));
    server.sql("shop", "XA ROLLBACK 'one'");
    let said = copy(&from.replace("root@", "app@"), &to("b.db")).done();
    assert!(said.contains("does not tell whether transactions"), "{said}");
    assert!(said.contains("GRANT LOCK TABLES"), "{said}");
}
