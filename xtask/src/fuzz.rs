//! A fuzzing run against the record service by its own description: schemathesis makes requests
//! of `docs/openapi.json`, right ones and wrong ones, and looks at every answer.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::clock::Stopwatch;
use crate::process::Guarded;
use crate::{Failure, Outcome, repo, steps, venv};

/// The version whose findings are known.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";
/// A failing run is repeated with the same requests.
const SEED: &str = "1";
/// How long requests are made, in seconds.
const FUZZING: &str = "40";
/// After so long the run has failed.
const LIMIT: Duration = Duration::from_secs(60);
/// How long the service has to listen.
const STARTS_WITHIN: Duration = Duration::from_secs(10);
/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Bounds as wide as the description's, so that what it allows is accepted.
const SERVICE: &str = r#"
listen = "127.0.0.1:0"
[limits]
wait_time = "50ms"
[[scope]]
name = "default"
lease_max = "1d"
remember = "36500d"
on_unknown = "retry"
receiver = { always = "fenced" }
[[caller]]
name = "fuzz"
token_file = "TOKEN"
scopes = ["default"]
operator = true
"#;

/// How keys stand may refuse any request; what is not understood may not refuse a right one.
const CHECKS: &str = r#"
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 403, 404, 409, 410, 412, 422]
"#;

/// Never secret: the service that knows it ends with the run.
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Runs it; a finding is a failure, and so is any answer of 5xx.
pub(crate) fn run() -> Outcome {
    let schemathesis = installed()?;
    let build = ["build", "-p", "onlyonce-cli", "--bin", "onlyonce"];
    steps::quiet("build of the service", Command::new(repo::cargo()).args(build))?;
    let folder = tempfile::tempdir()?;
    let mut service = Service::start(folder.path())?;
    let checks = folder.path().join("schemathesis.toml");
    fs::write(&checks, CHECKS)?;
    let log = folder.path().join("schemathesis.log");
    let output = File::create(&log)?;
    let mut command = Command::new(schemathesis);
    command
        .arg("--config-file")
        .arg(checks)
        .args(["run", &format!("{}/v1/openapi.json", service.url)])
        .args(["-H", &format!("Authorization: Bearer {TOKEN}")])
        .args(["--checks", "all", "--seed", SEED, "--max-time", FUZZING])
        .args(["--warnings", "off", "--no-color"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    let status = within(&mut Guarded::spawn(&mut command)?, LIMIT);
    let said = fs::read_to_string(&log)?;
    let logged = service.end()?;
    if logged.contains("panicked") {
        return Err(format!("the service panicked:\n{logged}").into());
    }
    if status?.success() {
        return Ok(());
    }
    println!("{said}");
    Err("schemathesis found something; see above".into())
}

/// The program, in an environment of its own below `target`.
fn installed() -> Result<PathBuf, Failure> {
    Ok(venv::tool("schemathesis", SCHEMATHESIS)?.join("bin/schemathesis"))
}

/// A record service on a store that there never was before.
struct Service {
    guarded: Guarded,
    log: PathBuf,
    url: String,
}

impl Service {
    fn start(folder: &Path) -> Result<Self, Failure> {
        let (token, config) = (folder.join("token"), folder.join("serve.toml"));
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&token)?;
        file.write_all(TOKEN.as_bytes())?;
        fs::write(&config, SERVICE.replace("TOKEN", &token.display().to_string()))?;
        let store = format!("journal:{}", folder.join("journal").display());
        let binary = repo::root().join("target/debug/onlyonce");
        let init = ["store", "init", "--first", "--store", &store];
        steps::quiet("store for schemathesis", Command::new(&binary).args(init))?;
        let (said, log) = (folder.join("serve.out"), folder.join("serve.log"));
        let mut command = Command::new(&binary);
        command.args(["serve", "--store", &store, "--config"]).arg(config);
        command.stdin(Stdio::null()).stdout(File::create(&said)?).stderr(File::create(&log)?);
        let guarded = Guarded::spawn(&mut command)?;
        let watch = Stopwatch::start();
        while watch.elapsed() < STARTS_WITHIN {
            if let Some(url) = listening(&fs::read_to_string(&said)?) {
                return Ok(Self { guarded, log, url });
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Err(format!("the service does not listen:\n{}", fs::read_to_string(&log)?).into())
    }

    /// Ends it as a service manager does, which must go well; and what it has logged.
    fn end(&mut self) -> Result<String, Failure> {
        self.guarded.interrupt();
        let status = within(&mut self.guarded, LIMIT)?;
        let logged = fs::read_to_string(&self.log)?;
        if status.success() {
            return Ok(logged);
        }
        Err(format!("the service ended with {status}:\n{logged}").into())
    }
}

/// Where the service says that it listens.
fn listening(said: &str) -> Option<String> {
    let (_, rest) = said.split_once("listening on ")?;
    rest.split_once(' ').map(|(url, _)| url.to_owned())
}

fn within(child: &mut Guarded, limit: Duration) -> Result<std::process::ExitStatus, Failure> {
    let watch = Stopwatch::start();
    while watch.elapsed() < limit {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Err(format!("it has not ended within {} s", limit.as_secs()).into())
}

#[cfg(test)]
mod tests {
    use super::listening;

    #[test]
    fn the_service_says_where_it_listens() {
        let said = "records in x\nlistening on http://127.0.0.1:81 for claims\n";
        assert_eq!(listening(said).as_deref(), Some("http://127.0.0.1:81"));
        assert_eq!(listening("records in x\n"), None);
    }
}
