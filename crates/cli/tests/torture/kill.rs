//! Kills the real proxy under load, again and again, and checks the history against what the
//! upstream counted.
//!
//! Used by the test of this crate (a few rounds) and by `cargo xtask torture kill` (many).

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Callers at once.
const CALLERS: u64 = 24;

/// Keys that are asked for at once in the end.
const AT_ONCE: usize = 64;

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) binary: PathBuf,
    pub(crate) seed: u64,
    pub(crate) rounds: u32,
    /// Ends earlier after this long.
    pub(crate) limit: Option<Duration>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) rounds: u32,
    pub(crate) keys: u64,
    /// Keys whose answer some caller had read before the last check.
    pub(crate) answered: u64,
    /// Keys that replayed in the last check.
    pub(crate) replayed: u64,
    /// Keys that ran in the last check, for the first time.
    pub(crate) ran: u64,
    /// Keys whose outcome nobody knows.
    pub(crate) unknown: u64,
}

/// A small generator (xorshift64*, Vigna 2016): seeds must mean the same everywhere.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % bound
    }
}

/// What happened in the outside world, by key: the answers to the effects that were counted.
#[derive(Default)]
struct World {
    effects: Mutex<BTreeMap<String, Vec<String>>>,
    calls: AtomicU64,
}

/// What a caller has read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    status: u16,
    says: String,
    body: String,
}

/// All answers that were read, by key, in their order.
type History = Arc<Mutex<BTreeMap<String, Vec<Told>>>>;

/// Runs it all. `Err` says which promise was broken.
pub(crate) async fn run(options: &Options) -> Result<Report, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let journal = folder.path().join("journal");
    init(&options.binary, &journal)?;
    let world = Arc::new(World::default());
    let upstream = upstream(Arc::clone(&world), options.seed).await;
    let (address, addresses) = watch::channel(None);
    let (history, stop) = (History::default(), Arc::new(AtomicBool::new(false)));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let random = Random::new(options.seed.wrapping_add(1_000 + caller));
            let (addresses, history) = (addresses.clone(), Arc::clone(&history));
            tokio::spawn(call(caller, random, addresses, history, Arc::clone(&stop)))
        })
        .collect();
    let mut random = Random::new(options.seed);
    let (begun, mut rounds) = (Instant::now(), 0);
    while rounds < options.rounds && options.limit.is_none_or(|limit| begun.elapsed() < limit) {
        let mut proxy = Proxy::start(&options.binary, &journal, upstream)?;
        address.send_replace(Some(proxy.address));
        sleep(Duration::from_millis(20 + random.below(300))).await;
        // Without a word to it.
        proxy.kill();
        rounds += 1;
    }
    stop.store(true, Ordering::Relaxed);
    let proxy = Proxy::start(&options.binary, &journal, upstream)?;
    address.send_replace(Some(proxy.address));
    for caller in callers {
        caller.await.map_err(|error| error.to_string())?;
    }
    let history = std::mem::take(&mut *history.lock().unwrap());
    check(proxy.address, &history, &world, rounds).await
}

fn init(binary: &Path, journal: &Path) -> Result<(), String> {
    let store = format!("journal:{}", journal.display());
    let made = Command::new(binary)
        .args(["store", "init", "--first", "--store", &store])
        .stdout(Stdio::null())
        .status();
    match made {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("the store could not be made: {other:?}")),
    }
}

/// A proxy process, killed when it is dropped.
struct Proxy {
    child: Child,
    address: SocketAddr,
}

impl Proxy {
    fn start(binary: &Path, journal: &Path, upstream: SocketAddr) -> Result<Self, String> {
        let mut child = Command::new(binary)
            .args(["proxy", "--listen", "127.0.0.1:0", "--log-level", "error"])
            .args(["--upstream", &format!("http://{upstream}")])
            .args(["--store", &format!("journal:{}", journal.display())])
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let out = child.stdout.take().ok_or("no standard output")?;
        let address = BufReader::new(out).lines().map_while(Result::ok).find_map(|line| {
            let rest = line.strip_prefix("listening on http://")?;
            rest.split(' ').next()?.parse().ok()
        });
        let Some(address) = address else {
            let status = child.wait();
            return Err(format!("the proxy did not start: {status:?}"));
        };
        Ok(Self { child, address })
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Counts an effect for each request that it does not refuse, and is sometimes slow to say so.
async fn upstream(world: Arc<World>, seed: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let world = Arc::clone(&world);
            let service = service_fn(move |request: Request<Incoming>| {
                let world = Arc::clone(&world);
                async move { Ok::<_, Infallible>(effect(&world, seed, request).await) }
            });
            tokio::spawn(async move {
                let serving = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                let _ = serving.await;
            });
        }
    });
    address
}

async fn effect(world: &World, seed: u64, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let key = request.headers()["idempotency-key"].to_str().unwrap().to_owned();
    let call = world.calls.fetch_add(1, Ordering::Relaxed);
    let mut random = Random::new(seed ^ (call << 20));
    if request.into_body().collect().await.is_err() {
        // Not all of it came, so nothing was done.
        return Response::builder().status(400).body(Full::default()).unwrap();
    }
    sleep(Duration::from_millis(random.below(8))).await;
    if random.below(16) == 0 {
        return Response::builder().status(429).body("slow down".into()).unwrap();
    }
    let padding = "x".repeat(random.below(3_000) as usize);
    let body = format!("effect {call} of {key} {padding}");
    world.effects.lock().unwrap().entry(key).or_default().push(body.clone());
    sleep(Duration::from_millis(random.below(8))).await;
    Response::builder().status(201).body(body.into()).unwrap()
}

/// One caller: a key after the other, each asked for several times, sometimes hanging up.
async fn call(
    caller: u64,
    mut random: Random,
    mut addresses: watch::Receiver<Option<SocketAddr>>,
    history: History,
    stop: Arc<AtomicBool>,
) {
    // Until the first proxy listens.
    if addresses.wait_for(Option::is_some).await.is_err() {
        return;
    }
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let key = format!("key-{caller}-{number}");
        number += 1;
        history.lock().unwrap().entry(key.clone()).or_default();
        for _ in 0..1 + random.below(4) {
            let patience = Duration::from_millis(1 + random.below(40));
            let Some(address) = *addresses.borrow() else { continue };
            // Half of the duplicates come at once.
            let twin = random.below(2) == 0;
            let asked = timeout(patience, ask(address, &key));
            let (one, two) = if twin {
                tokio::join!(asked, timeout(patience, ask(address, &key)))
            } else {
                (asked.await, Ok(None))
            };
            let told: Vec<Told> =
                [one, two].into_iter().filter_map(|it| it.ok().flatten()).collect();
            if told.is_empty() {
                // Nobody listens, most likely.
                sleep(Duration::from_millis(20)).await;
            }
            history.lock().unwrap().entry(key.clone()).or_default().extend(told);
        }
    }
}

/// One request on a connection of its own; `None` if no whole answer came.
async fn ask(address: SocketAddr, key: &str) -> Option<Told> {
    let stream = TcpStream::connect(address).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let request = Request::post("/orders")
        .header("host", "shop")
        .header("idempotency-key", key)
        .body(Full::<Bytes>::from("item=blender"))
        .ok()?;
    let (head, body) = sender.send_request(request).await.ok()?.into_parts();
    let says = head.headers.get("idempotency-status")?.to_str().ok()?.to_owned();
    let body = body.collect().await.ok()?.to_bytes();
    let body = String::from_utf8_lossy(&body).into_owned();
    Some(Told { status: head.status.as_u16(), says, body })
}

/// Whether an answer is the operation's own.
fn is_answer(told: &Told) -> bool {
    told.status == 201
}

/// Asks for every key once more, and holds everything that was ever said against the world.
async fn check(
    address: SocketAddr,
    history: &BTreeMap<String, Vec<Told>>,
    world: &World,
    rounds: u32,
) -> Result<Report, String> {
    let mut report = Report { rounds, keys: history.len() as u64, ..Report::default() };
    let before = world.effects.lock().unwrap().clone();
    let mut last_words = BTreeMap::new();
    let keys: Vec<&String> = history.keys().collect();
    for some in keys.chunks(AT_ONCE) {
        let mut asking = JoinSet::new();
        for key in some {
            let key = (*key).clone();
            asking.spawn(async move { (last_word(address, &key).await, key) });
        }
        while let Some(asked) = asking.join_next().await {
            let (word, key) = asked.map_err(|error| error.to_string())?;
            last_words.insert(key, word?);
        }
    }
    let after = world.effects.lock().unwrap().clone();
    for (key, told) in history {
        let of = |effects: &BTreeMap<String, Vec<String>>| effects.get(key).cloned();
        let (before, after) = (of(&before).unwrap_or_default(), of(&after).unwrap_or_default());
        let last = &last_words[key];
        judge(told, &before, &after, last, &mut report).map_err(|wrong| {
            format!("{key}: {wrong}\nanswers {told:#?}\nlast {last:?}\n{before:?}\n{after:?}")
        })?;
    }
    Ok(report)
}

/// Holds one key against its effects before and after it was asked for the last time.
fn judge(
    told: &[Told],
    before: &[String],
    after: &[String],
    last: &Told,
    report: &mut Report,
) -> Result<(), &'static str> {
    if 1 < after.len() {
        return Err("it ran twice");
    }
    let mut answers = told.iter().filter(|told| is_answer(told)).peekable();
    let answered = answers.peek().is_some();
    report.answered += u64::from(answered);
    if answers.any(|told| before.first() != Some(&told.body)) {
        return Err("an answer is not what happened");
    }
    match last.says.as_str() {
        "replayed" if after == before && before.first() == Some(&last.body) => {
            report.replayed += 1;
        }
        "executed" if before.is_empty() && after.first() == Some(&last.body) => report.ran += 1,
        "unknown" if after == before && !answered => report.unknown += 1,
        _ => return Err("the last word does not fit"),
    }
    Ok(())
}

/// What a key is answered once nothing is in progress and the upstream takes it.
async fn last_word(address: SocketAddr, key: &str) -> Result<Told, String> {
    for _ in 0..200 {
        match ask(address, key).await {
            Some(told) if !["in-progress", "not-executed"].contains(&told.says.as_str()) => {
                return Ok(told);
            }
            Some(_) | None => sleep(Duration::from_millis(20)).await,
        }
    }
    Err(format!("{key}: no last word"))
}
