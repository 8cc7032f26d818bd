//! The page in a real headless Chromium, by the charges and seats that are counted in the shops.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::browser::{Browser, ENTER, SPACE, TAB};
use crate::process::Demo;

fn open() -> (Demo, Browser) {
    let (demo, browser) = (Demo::start(), Browser::start());
    browser.open(&format!("http://{}/", demo.page()));
    (demo, browser)
}

/// Waits until `taps` taps of a lane have their receipts and none is pending.
fn settled(browser: &Browser, lane: &str, taps: usize) {
    browser.wait(&format!(
        "document.querySelectorAll('#{lane} li[data-receipt]').length === {taps} \
         && !document.querySelector('#{lane} .verdict').classList.contains('waiting')"
    ));
}

fn texts(browser: &Browser, selector: &str) -> Vec<String> {
    let script =
        format!("return [...document.querySelectorAll('{selector}')].map((it) => it.textContent)");
    serde_json::from_value(browser.run(&script)).unwrap()
}

/// The receipts that reached the page, as the bytes that were answered.
fn receipts(browser: &Browser, lane: &str) -> Vec<String> {
    let script = format!(
        "return [...document.querySelectorAll('#{lane} li')].map((it) => it.dataset.receipt)"
    );
    serde_json::from_value(browser.run(&script)).unwrap()
}

#[test]
fn three_taps_charge_once_with_onlyonce_and_more_often_without() {
    let (demo, browser) = open();
    for lane in ["without", "with"] {
        for _tap in 0..3 {
            browser.click(&format!("#{lane} .buy"));
        }
    }
    settled(&browser, "without", 3);
    settled(&browser, "with", 3);

    let state = demo.state();
    let without = state["without"]["charges"].as_u64().unwrap();
    assert!(3 <= without, "each tap was charged: {state}");
    assert_eq!(state["without"]["seats"].as_array().unwrap().len() as u64, without);
    let different: BTreeSet<String> = receipts(&browser, "without").into_iter().collect();
    assert_eq!(different.len(), 3);

    assert_eq!(state["with"]["charges"], 1);
    assert_eq!(state["with"]["seats"], json!(["A1"]));
    let same = receipts(&browser, "with");
    assert_eq!(same.len(), 3);
    assert!(same.iter().all(|it| it == &same[0]), "{same:?}");
    let receipt: Value = serde_json::from_str(&same[0]).unwrap();
    assert_eq!(state["with"]["receipts"], json!([receipt["receipt"]]));

    // What the page shows is what the shops have done.
    for lane in ["without", "with"] {
        let charges = state[lane]["charges"].to_string();
        for shown in ["charges", "seats"] {
            let shown = texts(&browser, &format!("#{lane} .{shown}"));
            assert_eq!(shown.join(","), charges);
        }
        assert!(!texts(&browser, &format!("#{lane} .try.lost")).is_empty(), "no answer was lost");
    }
    let replayed = texts(&browser, "#with .try:not(.lost)");
    let says = "201 Idempotency-Status: replayed Idempotent-Replayed: true";
    assert!(2 <= replayed.iter().filter(|it| it.trim() == says).count(), "{replayed:?}");
    assert_eq!(browser.console(), Vec::<Value>::new());
}

#[test]
fn the_keyboard_is_enough() {
    let (demo, browser) = open();
    let focused = |browser: &Browser| {
        browser
            .run("return document.activeElement.closest('.lane')?.id ?? document.activeElement.id")
    };
    let mut way = Vec::new();
    for _ in 0..4 {
        browser.press(TAB);
        way.push(focused(&browser));
    }
    assert_eq!(way, ["three", "reset", "without", "with"]);
    let outline = "getComputedStyle(document.activeElement).outlineStyle";
    assert_eq!(browser.run(&format!("return {outline}")), "solid", "the focus can be seen");
    for key in [ENTER, SPACE, ENTER] {
        browser.press(key);
    }
    settled(&browser, "with", 3);
    assert_eq!(focused(&browser), "with");
    assert_eq!(demo.state()["with"]["charges"], 1);
    assert_eq!(demo.state()["without"]["charges"], 0);
    assert_eq!(browser.console(), Vec::<Value>::new());
}

#[test]
fn starting_over_is_a_new_order() {
    let (demo, browser) = open();
    let key = |browser: &Browser| texts(browser, "#key").remove(0);
    browser.click("#three");
    settled(&browser, "without", 3);
    settled(&browser, "with", 3);
    assert_eq!(demo.state()["with"]["charges"], 1);
    let first = (key(&browser), receipts(&browser, "with").remove(0));

    browser.wait("!document.querySelector('#reset').disabled");
    browser.click("#reset");
    browser.wait("document.querySelectorAll('li').length === 0");
    assert_eq!(demo.state()["without"]["charges"], 0);
    browser.click("#with .buy");
    settled(&browser, "with", 1);
    let second = (key(&browser), receipts(&browser, "with").remove(0));
    assert_ne!(first.0, second.0);
    assert_ne!(first.1, second.1);
    assert_eq!(demo.state()["with"]["charges"], 1);
    assert_eq!(browser.console(), Vec::<Value>::new());
}

#[test]
fn everything_has_a_name_and_changes_are_told() {
    let (_demo, browser) = open();
    for (selector, name, role) in [
        ("#three", "Tap both three times", "button"),
        ("#reset", "Start over", "button"),
        ("#without", "Without onlyonce", "region"),
        ("#with", "With onlyonce", "region"),
        ("#with .buy", "Purchase · 49\u{a0}€", "button"),
        ("#with .verdict", "", "status"),
        ("#with .hall", "No seat is booked", "image"),
    ] {
        assert_eq!(browser.name_and_role(selector), (name.into(), role.into()), "{selector}");
    }
    browser.click("#with .buy");
    settled(&browser, "with", 1);
    let told = texts(&browser, "#with [aria-live=polite]");
    assert_eq!(told, ["1 tap, 1 charge: you paid 49\u{a0}€ for a ticket of 49\u{a0}€."]);
    assert_eq!(browser.name_and_role("#with .hall").0, "Booked: A1");
}

#[test]
fn it_fits_a_phone_and_needs_nothing_from_elsewhere() {
    let (demo, browser) = open();
    browser.screen(320, 640, "dark");
    browser.click("#three");
    settled(&browser, "without", 3);
    let overflow = "document.documentElement.scrollWidth - innerWidth";
    assert_eq!(browser.run(&format!("return {overflow}")), 0);
    let hosts = "return [...new Set(performance.getEntriesByType('resource').map((it) => \
        new URL(it.name).host))]";
    assert_eq!(browser.run(hosts), json!([demo.page()]));
}
