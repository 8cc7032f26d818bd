//! The curl lines that the demo prints give what the line above each of them promises.

use std::process::Command;

use serde_json::{Value, json};

use crate::process::Demo;

/// Runs a printed line as a user would.
fn run(line: &str) -> String {
    let ran = Command::new("sh").arg("-c").arg(line).output().unwrap();
    assert!(ran.status.success(), "{line}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

#[test]
fn each_line_gives_what_is_promised_above_it() {
    let demo = Demo::start();
    let lines: Vec<&str> = demo.text.lines().map(str::trim).collect();
    let mut bodies = Vec::new();
    for pair in lines.windows(2).filter(|pair| pair[1].starts_with("curl -i ")) {
        let promised = pair[0].rsplit_once(": ").unwrap().1;
        let mut promised = promised.split(", ");
        let (status, evaluated) = (promised.next().unwrap(), promised.next().unwrap());
        let answer = run(pair[1]);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{}: {answer}", pair[0]);
        let evaluated = format!("\r\nidempotency-status: {evaluated}\r\n");
        assert!(answer.contains(&evaluated), "{}: {answer}", pair[0]);
        bodies.push(answer.split_once("\r\n\r\n").unwrap().1.to_owned());
    }
    assert_eq!(bodies.len(), 4);
    assert_eq!(bodies[1], bodies[0], "a replay is the same receipt");
    assert!(bodies[2].contains("urn:onlyonce:problem:key-reused"), "{}", bodies[2]);

    let last = lines.iter().find(|line| line.ends_with("/state")).unwrap();
    let state: Value = serde_json::from_str(&run(last)).unwrap();
    assert_eq!(state["curl"]["charges"], 1);
    assert_eq!(state["curl"]["seats"], json!(["A1"]));
    assert_eq!(state["with"]["charges"], 0, "the page counts by itself");
}
