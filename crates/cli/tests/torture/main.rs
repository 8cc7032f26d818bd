//! A few rounds of the kill test; `cargo xtask torture kill` runs more of them.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod check;
mod kill;
#[allow(dead_code, reason = "the torture of disks, which needs rights of its own, uses more of it")]
mod load;
#[allow(dead_code, reason = "the torture of disks, which needs rights of its own, uses more of it")]
mod proxy;
mod random;

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
