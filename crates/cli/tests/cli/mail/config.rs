//! A sender with a configuration file: kinds of messages have rules of their own.

use super::{Shop, WELCOME};
use crate::process::{Running, until};

impl Shop {
    /// A sender that knows all from this file, and these flags.
    fn runs_by(&self, file: &str, more: &[&str]) -> Running {
        let file = self.folder.write("mail.toml", file);
        let store = self.folder.store();
        let words = ["mail", "run", "--spool", &self.spool, "--store", &store, "--config", &file];
        Running::start(words.iter().chain(more).map(ToString::to_string))
    }

    fn server_table(&self) -> String {
        format!("[server]\nhost = \"{}\"\ntls = \"none\"\n", self.address)
    }
}

/// A code for a login is worth nothing when it comes late; news are.
#[test]
fn a_message_that_comes_too_late_for_its_class_is_refused_and_others_are_sent() {
    let shop = Shop::open();
    shop.add("login/7", &["ann@mail.example"], WELCOME).done();
    shop.add("news/7", &["bob@mail.example"], WELCOME).done();
    let class = "[[class]]\nkeys = \"login/\"\n[class.policy]\ntry_for = \"1ms\"\n";
    let file = format!("{}{class}", shop.server_table());
    let out = shop.runs_by(&file, &["--once"]).ended().done();
    assert!(out.contains("refused login/7/ann@mail.example"), "{out}");
    assert_eq!(shop.server.ended(), ["bob@mail.example"]);
    assert_eq!(shop.counts(), [0, 0, 0, 1, 1]);
}

/// What is held for a person in one class is looked for in another.
#[test]
fn each_class_has_its_own_word_on_doubts() {
    let shop = Shop::open();
    shop.add("invoice/7", &["ann@mail.example"], WELCOME).done();
    shop.add("news/7", &["bob@mail.example"], WELCOME).done();
    let file = format!(
        "{}[probe]\nwho = \"echo found\"\n[policy]\non_unknown = \"probe\"\n\
         [[class]]\nkeys = \"invoice/\"\n[class.policy]\non_unknown = \"hold\"\n",
        shop.server_table()
    );
    shop.server.leaves(".");
    let running = shop.runs_by(&file, &[]);
    until("both ends", || (shop.server.ended().len() == 2).then_some(()));
    running.signal(rustix::process::Signal::KILL);
    running.ended();
    shop.server.answers();
    let out = shop.runs_by(&file, &["--once"]).ended().done();
    assert!(out.contains("unknown invoice/7/ann@mail.example"), "{out}");
    assert!(out.contains("sent news/7/bob@mail.example"), "{out}");
    assert_eq!((shop.counts(), shop.server.ended().len()), ([0, 0, 1, 1, 0], 2));
}

#[test]
fn a_mistake_in_the_file_is_named_with_its_line_before_anything_is_sent() {
    let shop = Shop::open();
    shop.add("welcome", &["ann@mail.example"], WELCOME).done();
    let file = format!("{}[policy]\ntriez = 3\n", shop.server_table());
    let told = shop.runs_by(&file, &["--once"]).ended().failed(2);
    assert!(told.contains("mail.toml:5:1: unknown name `triez`; did you mean `tries`?"), "{told}");
    assert_eq!((shop.server.ended().len(), shop.counts()), (0, [1, 0, 0, 0, 0]));
    // A flag counts before the file, and what is given up stays so.
    let file = format!("{}[policy]\ntries = 3\n", shop.server_table());
    shop.server.leaves("EHLO");
    let out = shop
        .runs_by(&file, &["--once", "--tries", "1", "--server", "127.0.0.1:1", "--tls", "none"]);
    let out = out.ended().done();
    assert!(out.contains("given up after attempt 1"), "{out}");
    assert_eq!((shop.server.ended().len(), shop.counts()), (0, [0, 0, 0, 0, 1]));
}
