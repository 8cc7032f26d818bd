//! A headless Chromium, driven over WebDriver (W3C, <https://www.w3.org/TR/webdriver2/>).

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

use crate::plain;

/// How often a condition is looked at, and how many times before the test fails.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOOKS_MAX: u32 = 1200;
/// What WebDriver calls a reference to an element in JSON.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// The keys of a keyboard in WebDriver's private code points.
pub(crate) const TAB: &str = "\u{e004}";
pub(crate) const ENTER: &str = "\u{e007}";
pub(crate) const SPACE: &str = " ";

/// A browser with one window.
pub(crate) struct Browser {
    driver: Child,
    /// Open, so that the driver can always write.
    _stdout: BufReader<ChildStdout>,
    /// Profile and temporary files of the browser.
    _folder: tempfile::TempDir,
    /// Host and port of the driver.
    address: String,
    /// The path of the session.
    session: String,
    /// The browser itself: it may have a group of its own.
    pid: Option<i32>,
}

impl Browser {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .env("TMPDIR", folder.path())
            .env("HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("chromedriver: {error}; cargo xtask test installs it"));
        let mut stdout = BufReader::new(driver.stdout.take().unwrap());
        let mut line = String::new();
        let port = loop {
            line.clear();
            let read = stdout.read_line(&mut line).unwrap();
            assert_ne!(read, 0, "chromedriver ended early; cargo xtask test installs it");
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                break port.trim().trim_end_matches('.').to_owned();
            }
        };
        let mut browser = Self {
            driver,
            _stdout: stdout,
            address: format!("127.0.0.1:{port}"),
            session: String::new(),
            pid: None,
            _folder: folder,
        };
        browser.open_session();
        browser
    }

    fn open_session(&mut self) {
        let profile = self._folder.path().join("profile");
        let arguments = [
            "--headless=new".to_owned(),
            // Chromium has no sandbox where the tests run as root; it only sees our page.
            "--no-sandbox".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-gpu".to_owned(),
            "--hide-scrollbars".to_owned(),
            "--window-size=1200,1000".to_owned(),
            format!("--user-data-dir={}", profile.display()),
        ];
        let capabilities = json!({
            "browserName": "chrome",
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let asked = json!({ "capabilities": { "alwaysMatch": capabilities } });
        let answer = self.send("POST", "/session", &asked);
        self.session = format!("/session/{}", answer["sessionId"].as_str().unwrap());
        let pid = answer["capabilities"]["goog:processID"].as_i64();
        self.pid = pid.and_then(|pid| i32::try_from(pid).ok());
    }

    fn send(&self, method: &str, path: &str, body: &Value) -> Value {
        let json = [("Content-Type", "application/json")];
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let answer = plain::request(&self.address, method, path, &json, &body);
        assert_eq!(answer.status, 200, "{method} {path} {body}: {}", answer.body);
        answer.json()["value"].take()
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        self.send("POST", &format!("{}{path}", self.session), body)
    }

    pub(crate) fn open(&self, url: &str) {
        self.post("/url", &json!({ "url": url }));
    }

    /// Runs a script in the page and gives what it returns.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Waits until a script in the page returns true.
    pub(crate) fn wait(&self, condition: &str) {
        for _ in 0..LOOKS_MAX {
            if self.run(&format!("return {condition}")) == true {
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        panic!("never true: {condition}\n{}", self.run("return document.body.innerText"));
    }

    fn element(&self, selector: &str) -> String {
        let found = json!({ "using": "css selector", "value": selector });
        self.post("/element", &found)[ELEMENT].as_str().unwrap().to_owned()
    }

    /// Clicks as a mouse does: where the element is, if nothing covers it.
    pub(crate) fn click(&self, selector: &str) {
        let element = self.element(selector);
        self.post(&format!("/element/{element}/click"), &json!({}));
    }

    /// Presses and lets go of a key, wherever the focus is.
    pub(crate) fn press(&self, key: &str) {
        let steps = json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": steps });
        self.post("/actions", &json!({ "actions": [keyboard] }));
    }

    /// What a screen reader calls the element, and what it says it is.
    pub(crate) fn name_and_role(&self, selector: &str) -> (String, String) {
        let element = self.element(selector);
        let get = |what: &str| {
            let path = format!("{}/element/{element}/{what}", self.session);
            self.send("GET", &path, &Value::Null).as_str().unwrap().to_owned()
        };
        (get("computedlabel"), get("computedrole"))
    }

    /// Has the page shown on a screen of this size in CSS pixels, light or dark.
    pub(crate) fn screen(&self, width: u32, height: u32, scheme: &str) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1,
            "mobile": width < 600 });
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.devtools("Emulation.setEmulatedMedia", &json!({ "features": [feature] }));
    }

    /// Speaks to the browser's developer tools, for what WebDriver has no word for.
    pub(crate) fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.post("/goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    /// What the console has shown since it was last asked.
    pub(crate) fn console(&self) -> Vec<Value> {
        let shown = self.post("/se/log", &json!({ "type": "browser" }));
        shown.as_array().unwrap().clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Nothing here may fail: the test may have failed already. What is gone is gone.
        let groups = [self.pid.and_then(Pid::from_raw), Some(Pid::from_child(&self.driver))];
        for group in groups.into_iter().flatten() {
            let _ = kill_process_group(group, Signal::KILL);
        }
        if let Some(browser) = self.pid.and_then(Pid::from_raw) {
            let _ = rustix::process::kill_process(browser, Signal::KILL);
        }
        let _ = self.driver.wait();
    }
}
