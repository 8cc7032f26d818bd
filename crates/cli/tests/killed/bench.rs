//! A store, an upstream and the real binary on it, which dies where it is told to and is started
//! again.

use std::fs::Permissions;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::ageing;
use crate::caller::{Answer, Caller};
use crate::shop::Shop;

/// How often a condition is looked at, and how many times before the test fails.
const LOOK_EVERY: Duration = Duration::from_millis(2);
const LOOKS_MAX: u32 = 30_000;

/// Looks until there is something to see.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..LOOKS_MAX {
        if let Some(seen) = look() {
            return seen;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    panic!("never: {what}")
}

/// Where a process kills itself: the name of the place, and what the state there says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) name: &'static str,
    pub(crate) says: &'static [&'static str],
}

/// Everything around one store.
pub(crate) struct Bench {
    binary: PathBuf,
    folder: tempfile::TempDir,
    config: PathBuf,
    /// The journal's folder.
    journal: PathBuf,
    /// Encrypts what is kept.
    key_file: Option<PathBuf>,
    pub(crate) shop: Shop,
    proxy: Option<Proxy>,
}

/// The binary as a proxy, killed when it is dropped.
pub(crate) struct Proxy {
    child: Child,
    address: Option<SocketAddr>,
}

impl Proxy {
    /// Started by this command, and heard until it listens or is dead.
    pub(crate) fn spawn(mut command: Command) -> Self {
        let child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut proxy = Self { child, address: None };
        let out = BufReader::new(proxy.child.stdout.take().unwrap());
        // `None` if it dies before it listens.
        proxy.address = out.lines().map_while(Result::ok).find_map(|line| {
            let rest = line.strip_prefix("listening on http://")?;
            rest.split(' ').next()?.parse().ok()
        });
        proxy
    }

    /// Where it listens.
    #[track_caller]
    pub(crate) fn address(&self) -> SocketAddr {
        self.address.expect("a proxy that listens")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended already, and then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Bench {
    pub(crate) fn new(binary: &Path, config: &str) -> Self {
        let bench = Self::without_store(binary, config);
        let made = bench.onlyonce(&["store", "init", "--first"]);
        assert_eq!(made.0, Some(0), "{made:?}");
        bench
    }

    /// The same with a small first segment, which is soon read: where its size says nothing.
    pub(crate) fn small(binary: &Path, config: &str) -> Self {
        let bench = Self::without_store(binary, config);
        ageing::init(bench.journal());
        bench
    }

    fn without_store(binary: &Path, config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.toml");
        std::fs::write(&path, config).unwrap();
        let (binary, shop) = (binary.to_owned(), Shop::open());
        let journal = folder.path().join("journal");
        let (key_file, proxy) = (None, None);
        Self { binary, folder, config: path, journal, key_file, shop, proxy }
    }

    /// A place beside the journal.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn journal(&self) -> &Path {
        &self.journal
    }

    /// From now on this is the journal.
    pub(crate) fn move_to(&mut self, journal: PathBuf) {
        self.journal = journal;
    }

    /// From now on answers are encrypted with these keys, the newest first.
    pub(crate) fn encrypt(&mut self, keys: &[&str]) {
        let path = self.path("keys");
        std::fs::write(&path, keys.join("\n")).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        self.key_file = Some(path);
    }

    /// The files of segments.
    pub(crate) fn segments(&self) -> usize {
        let names = std::fs::read_dir(self.journal()).unwrap().map(|it| it.unwrap().path());
        names.filter(|path| path.extension().is_some_and(|it| it == "log")).count()
    }

    /// Runs a command on the store: its code and what it printed.
    fn onlyonce(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let store = format!("journal:{}", self.journal().display());
        let mut command = self.command(arguments);
        let ran = command.args(["--store", &store]).output().unwrap();
        (ran.status.code(), String::from_utf8_lossy(&ran.stdout).into_owned())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments).env_remove("ONLYONCE_STORE").stdin(Stdio::null());
        command
    }

    /// Runs `onlyonce journal` with these words and folders, to its end or to where it is killed.
    pub(crate) fn on_journal(&self, word: &str, folders: &[&Path]) -> Output {
        let mut command = self.command(&["journal", word]);
        command.args(folders).env("ONLYONCE_KILL_AT", self.order_file()).output().unwrap()
    }

    /// That nothing is wrong with a journal or a backup that nobody has open.
    #[track_caller]
    pub(crate) fn check(&self, folder: &Path) {
        let found = self.on_journal("check", &[folder]);
        assert!(found.status.success(), "{folder:?}: {found:?}");
    }

    fn start(&self) -> Proxy {
        let upstream = format!("http://{}", self.shop.address);
        let store = format!("journal:{}", self.journal().display());
        let mut command = self.command(&["proxy", "--listen", "127.0.0.1:0"]);
        command.args(["--log-level", "error", "--upstream", &upstream, "--store", &store]);
        command.arg("--config").arg(&self.config).env("ONLYONCE_KILL_AT", self.order_file());
        if let Some(file) = &self.key_file {
            command.arg("--key-file").arg(file);
        }
        Proxy::spawn(command)
    }

    /// Where a proxy listens, started if none runs.
    #[track_caller]
    pub(crate) fn proxy(&mut self) -> SocketAddr {
        if self.proxy.is_none() {
            self.proxy = Some(self.start());
        }
        self.proxy.as_ref().expect("a proxy").address()
    }

    /// Starts a proxy and says whether it listens; it is there then.
    pub(crate) fn starts(&mut self) -> bool {
        let proxy = self.start();
        let listens = proxy.address.is_some();
        self.proxy = listens.then_some(proxy);
        listens
    }

    /// Ends the proxy as a service manager does.
    pub(crate) fn stop(&mut self) {
        let Some(mut proxy) = self.proxy.take() else { return };
        kill_process(Pid::from_child(&proxy.child), Signal::TERM).unwrap();
        assert!(proxy.child.wait().unwrap().success());
    }

    fn order_file(&self) -> PathBuf {
        self.folder.path().join("order")
    }

    fn order(&self, what: &str, place: Place) {
        let lines = [&[&*format!("{what} {}", place.name)], place.says].concat().join("\n");
        let new = self.folder.path().join("order.new");
        std::fs::write(&new, lines).unwrap();
        // Never half of an order.
        std::fs::rename(new, self.order_file()).unwrap();
    }

    /// Nobody is killed any more.
    pub(crate) fn no_order(&self) {
        // It may have been taken back already.
        let _ = std::fs::remove_file(self.order_file());
    }

    /// From now on whoever comes to this place is killed there.
    pub(crate) fn kill_at(&self, place: Place) {
        self.order("kill", place);
    }

    /// Runs `work`, and waits until the proxy has passed this place.
    pub(crate) fn passes<T>(&self, place: Place, work: impl FnOnce() -> T) -> T {
        let passed = self.folder.path().join("order.passed");
        let _ = std::fs::remove_file(&passed);
        self.order("pass", place);
        let done = work();
        until(place.name, || passed.exists().then_some(()));
        done
    }

    /// Starts a proxy, which is killed by itself or by what it is asked.
    pub(crate) fn start_doomed(&mut self) {
        self.proxy = Some(self.start());
    }

    /// Whether the proxy has ended.
    pub(crate) fn is_dead(&mut self) -> bool {
        self.proxy.as_mut().is_some_and(|proxy| proxy.child.try_wait().unwrap().is_some())
    }

    /// Waits until the proxy has killed itself, and everybody else has seen it.
    #[track_caller]
    pub(crate) fn died(&mut self, place: Place) {
        let mut proxy = self.proxy.take().unwrap();
        let status = until(&format!("{place:?}"), || proxy.child.try_wait().unwrap());
        assert_eq!(status.signal(), Some(9), "{place:?}: {status}");
        std::fs::remove_file(self.order_file()).unwrap();
        self.shop.quiet();
    }

    /// The state of a key's record.
    pub(crate) fn state(&self, key: &str) -> String {
        let mut arguments = vec!["keys", "get", "--key", key];
        if let Some(file) = &self.key_file {
            arguments.extend(["--key-file", file.to_str().unwrap()]);
        }
        let (code, out) = self.onlyonce(&arguments);
        match code {
            Some(0) => {
                let line = out.lines().find_map(|line| line.strip_prefix("state "));
                line.unwrap().trim().to_owned()
            }
            Some(1) => "absent".to_owned(),
            _ => panic!("{code:?} {out}"),
        }
    }

    /// Asks until nobody is at work on the key, and the store answers: a busy disk takes its time.
    pub(crate) fn asks(&mut self, path: &str, key: &str, length: usize) -> Answer {
        let proxy = self.proxy();
        until("an answer", || {
            let answer = Caller::ask(proxy, path, key, length).saw().whole()?;
            (answer.says != "in-progress" && answer.status != 503).then_some(answer)
        })
    }
}
