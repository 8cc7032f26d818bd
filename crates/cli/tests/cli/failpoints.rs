//! An ordinary build has nothing in it of the places at which tests kill the process.

#![cfg(not(feature = "failpoints"))]

#[test]
fn an_ordinary_binary_cannot_be_told_to_kill_itself() {
    let bytes = std::fs::read(env!("CARGO_BIN_EXE_onlyonce")).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let has = |name: &str| text.contains(name);
    assert!(has("listening on http://"), "it is looked for in the right way");
    assert!(!has("ONLYONCE_KILL_AT") && !has("relay.hold.before"));
}
