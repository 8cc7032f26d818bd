//! A place where scripts make things: each is a line of a file, so that all that was ever made can
//! be counted.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use onlyonce::{Engine, Settings};
use onlyonce_core::Secret;
use onlyonce_provision::{Applied, Became, Plan, Provisioner, Step};
use onlyonce_store::{MemoryStore, Store};
use onlyonce_tokio::TokioRuntime;

/// Looks for lines that begin with the marker; a file `check` beside goes before it.
const CHECK: &str = "\
if [ -e check ]; then . ./check; fi
n=$(grep -c \"^$ONLYONCE_MARKER \" made)
if [ $n -gt 1 ]; then sed -n \"s/^$ONLYONCE_MARKER \\([^ ]*\\).*/\\1/p\" made; exit 12; fi
if [ $n = 1 ]; then sed -n \"s/^$ONLYONCE_MARKER \\([^ ]*\\).*/\\1/p\" made; exit 0; fi
exit 10
";

/// Makes a line and says its id; files `before` and `after` beside go there.
const CREATE: &str = "\
echo \"$ONLYONCE_KEY $ONLYONCE_TOKEN\" >> tried
if [ -e before ]; then . ./before; fi
id=$ONLYONCE_KEY-$(wc -l < made)
echo \"$ONLYONCE_MARKER $id $INPUT_SIZE $INPUT_NETWORK\" >> made
if [ -e after ]; then . ./after; fi
echo $id
";

/// Takes the line away; files `before-end` and `after-end` beside go there.
const DESTROY: &str = "\
echo \"$ONLYONCE_ID $ONLYONCE_TOKEN $INPUT_SIZE\" >> ended
if [ -e before-end ]; then . ./before-end; fi
grep -v \"^$ONLYONCE_MARKER $ONLYONCE_ID \" made > left; mv left made
if [ -e after-end ]; then . ./after-end; fi
";

pub(crate) struct Site {
    folder: tempfile::TempDir,
    store: Arc<MemoryStore>,
}

impl Site {
    pub(crate) fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let site = Self { folder, store: Arc::new(MemoryStore::new()) };
        for (name, text) in [("made", ""), ("tried", ""), ("ended", ""), ("check.sh", CHECK)] {
            site.write(name, text);
        }
        site.write("create.sh", CREATE);
        site.write("destroy.sh", DESTROY);
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// How many things there are.
    pub(crate) fn made(&self) -> usize {
        self.read("made").lines().count()
    }

    /// How often the making of one was begun.
    pub(crate) fn tried(&self) -> usize {
        self.read("tried").lines().count()
    }

    /// How often the destroying of one was begun.
    pub(crate) fn ended(&self) -> usize {
        self.read("ended").lines().count()
    }

    /// The store is lost, and a new one is there.
    pub(crate) fn lose_the_store(&mut self) {
        self.store = Arc::new(MemoryStore::new());
    }

    /// A plan on the store that there is, by a process that knows nothing of earlier ones.
    pub(crate) async fn provisioner(&self, plan: &str) -> Provisioner {
        self.provisioner_on(plan, self.store.clone()).await
    }

    /// The same, on another store.
    pub(crate) async fn provisioner_on(&self, plan: &str, store: Arc<dyn Store>) -> Provisioner {
        let plan = Plan::parse("plan.toml", plan, self.folder.path()).unwrap();
        let runtime = Arc::new(TokioRuntime::new());
        let engine = Engine::start(store, runtime, Settings::default(), None).await.unwrap();
        let secret = Secret::from_bytes([7; 32]);
        Provisioner::new(engine, secret, plan, self.path("scripts")).unwrap()
    }

    /// Applies it; what became of each, in the order of the plan.
    pub(crate) async fn apply(&self, plan: &str) -> Vec<Became> {
        let provisioner = self.provisioner(plan).await;
        apply(&provisioner).await.into_iter().map(|applied| applied.became).collect()
    }

    /// Applies a plan of one resource.
    pub(crate) async fn apply_one(&self, plan: &str) -> Became {
        let mut all = self.apply(plan).await;
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }
}

pub(crate) async fn apply(provisioner: &Provisioner) -> Vec<Applied> {
    let wait = Duration::from_secs(60);
    let told = |_: &str, _: &Step| {};
    provisioner.apply(4, wait, std::future::pending(), told).await
}

/// How often a condition is looked at, and how many times before the test fails.
const LOOK_EVERY: Duration = Duration::from_millis(5);
const LOOKS_MAX: u32 = 12_000;

/// Looks until it is so.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    for _ in 0..LOOKS_MAX {
        if is_so().await {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    panic!("never: {what}")
}

/// A plan of one thing, and more lines about it.
pub(crate) fn one(more: &str) -> String {
    format!("name = \"shop\"\n{}", thing("web", more))
}

/// A thing of a plan, made by the scripts.
pub(crate) fn thing(key: &str, more: &str) -> String {
    format!(
        "[[resource]]\nkey = \"{key}\"\nkind = \"command\"\ncheck = \". ./check.sh\"\ncreate = \". \
         ./create.sh\"\n{more}\n"
    )
}

/// The id of what is ready.
#[track_caller]
pub(crate) fn ready(became: &Became) -> &str {
    let Became::Ready(receipt) = became else { panic!("{became:?}") };
    &receipt.id
}
