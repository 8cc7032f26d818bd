//! A few rounds of the kill test, a few faults of a shared store, and a few messages; `cargo xtask
//! torture` has more of each.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

#[allow(dead_code, reason = "the long torture names the kinds")]
mod backend;
mod check;
mod kill;
#[allow(dead_code, reason = "the torture of disks, which needs rights of its own, uses more of it")]
mod load;
mod mail;
#[allow(dead_code, reason = "the torture of disks, which needs rights of its own, uses more of it")]
mod proxy;
mod random;
mod stores;

use std::path::PathBuf;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_kills_under_load_leave_no_operation_run_twice_and_no_answer_changed() {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_onlyonce"));
    let options = kill::Options { binary, seed: 1, rounds: 10, limit: None };
    let report = kill::run(&options).await.unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!(report.rounds, 10);
    assert!(100 < report.answered, "{report:?}");
    assert_eq!(report.replayed + report.ran + report.unknown, report.keys);
}

/// Faults of a server, of the way to it and of proxies; `cargo xtask torture stores` has more of
/// them.
async fn proxies_run_each_operation_once_whatever_ends_the_server(kind: backend::Kind) {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_onlyonce"));
    let kinds = vec![kind];
    let options = stores::Options { binary, seed: 1, kinds, rounds: 1, faults: 6, limit: None };
    let report = stores::run(&options).await.unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!(report.faults, 6);
    assert!(20 < report.answered, "{report:?}");
    assert_eq!(report.replayed + report.ran + report.unknown + report.not_kept, report.keys);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxies_that_share_a_postgres_run_each_operation_once_whatever_ends_it() {
    proxies_run_each_operation_once_whatever_ends_the_server(backend::Kind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxies_that_share_a_mariadb_run_each_operation_once_whatever_ends_it() {
    proxies_run_each_operation_once_whatever_ends_the_server(backend::Kind::Mysql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxies_that_share_a_redis_run_each_operation_once_whatever_ends_it() {
    proxies_run_each_operation_once_whatever_ends_the_server(backend::Kind::Redis).await;
}

/// A leader that is killed, frozen, or cut off from the others is among them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxies_that_share_an_etcd_run_each_operation_once_whatever_ends_a_leader() {
    proxies_run_each_operation_once_whatever_ends_the_server(backend::Kind::Etcd).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxies_that_share_a_file_run_each_operation_once_whichever_is_killed() {
    proxies_run_each_operation_once_whatever_ends_the_server(backend::Kind::Sqlite).await;
}

/// Cases B123 and B126. The sender of mail is killed at any moment, and its connection cut at every
/// word: no end is said twice unless the server was found not to have the message, everything is
/// sent, refused or in doubt, and queue and log of a real server settle every doubt.
#[test]
fn a_sender_that_is_killed_and_cut_off_hands_over_each_message_once() {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_onlyonce"));
    std::thread::scope(|threads| {
        let reports = mail::Kind::ALL.map(|kind| {
            let (binary, stop) = (binary.clone(), mail::Stop::default());
            let options = mail::Options { binary, seed: 1, messages: 100, kind, stop };
            threads.spawn(move || mail::run(&options).unwrap_or_else(|wrong| panic!("{wrong}")))
        });
        for report in reports.map(|it| it.join().unwrap()) {
            println!("{report}");
            assert!(0 < report.kills && 0 < report.cuts && 0 < report.unknown, "{report:?}");
            let is_asked = report.kind != mail::Kind::Scripted;
            assert!(!is_asked || report.unknown_in_the_end == 0, "{report:?}");
            let all = report.sent + report.refused + report.unknown_in_the_end;
            assert_eq!(all, report.messages, "{report:?}");
        }
    });
}
