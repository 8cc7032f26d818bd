//! Files: each is made whole or not at all, and nobody else's is written over or taken for ours.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use onlyonce_provision::Became;

use crate::site::{Site, ready};

const PLAN: &str = "name = \"shop\"\n[[resource]]\nkey = \"conf\"\nkind = \"file\"\n\
    inputs = { path = \"app.conf\", content = \"port = 80\\n\", mode = \"0600\" }\n";

#[tokio::test]
async fn a_file_is_made_once_with_content_and_mode_and_edits_stay() {
    let site = Site::open();
    assert_eq!(ready(&site.apply_one(PLAN).await), "app.conf");
    assert_eq!(site.read("app.conf"), "port = 80\n");
    let mode = fs::metadata(site.path("app.conf")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    site.write("app.conf", "port = 81\n");
    assert_eq!(ready(&site.apply_one(PLAN).await), "app.conf");
    assert_eq!(site.read("app.conf"), "port = 81\n");
}

#[tokio::test]
async fn a_file_of_somebody_else_is_neither_taken_nor_written_over() {
    let site = Site::open();
    // The same content is no proof.
    site.write("app.conf", "port = 80\n");
    assert!(matches!(site.apply_one(PLAN).await, Became::Conflict(_)));
    assert_eq!(site.read("app.conf"), "port = 80\n");
    site.remove("app.conf");
    std::os::unix::fs::symlink("nowhere", site.path("app.conf")).unwrap();
    assert!(matches!(site.apply_one(PLAN).await, Became::Conflict(_)));
    assert!(!site.path("nowhere").exists());
}

#[tokio::test]
async fn a_store_that_was_lost_finds_its_file_and_no_other() {
    let mut site = Site::open();
    site.apply_one(PLAN).await;
    site.lose_the_store();
    assert_eq!(ready(&site.apply_one(PLAN).await), "app.conf");
    // Another file takes its place.
    site.write("other", "mine");
    fs::rename(site.path("other"), site.path("app.conf")).unwrap();
    assert!(matches!(site.apply_one(PLAN).await, Became::Missing { .. }));
    site.lose_the_store();
    assert!(matches!(site.apply_one(PLAN).await, Became::Conflict(_)));
    assert_eq!(site.read("app.conf"), "mine");
}

/// An attempt that was cut off left its second name, with what the plan said then.
#[tokio::test]
async fn what_an_attempt_left_behind_is_made_anew_before_it_gets_its_name() {
    let mut site = Site::open();
    site.apply_one(PLAN).await;
    site.remove("app.conf");
    site.lose_the_store();
    let other = PLAN.replace("port = 80", "port = 82");
    assert_eq!(ready(&site.apply_one(&other).await), "app.conf");
    assert_eq!(site.read("app.conf"), "port = 82\n");
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_a_refusal_and_can_be_mended() {
    let site = Site::open();
    let plan = PLAN.replace("app.conf", "etc/app.conf");
    assert!(matches!(site.apply_one(&plan).await, Became::Refused(_)));
    fs::create_dir(site.path("etc")).unwrap();
    assert_eq!(ready(&site.apply_one(&plan).await), "etc/app.conf");
    assert_eq!(site.read("etc/app.conf"), "port = 80\n");
}
