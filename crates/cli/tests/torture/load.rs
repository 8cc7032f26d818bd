//! The load under which a proxy is tortured: callers without end, an upstream that counts, and a
//! history of all that was said.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
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
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::proxy::Proxy;
use crate::random::Random;

/// Callers at once.
const CALLERS: u64 = 24;

/// How heavy the load is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weight {
    /// The longest answer, in bytes.
    pub(crate) answer_max: u64,
    /// How long a caller waits at most, in milliseconds.
    pub(crate) patience_max: u64,
}

/// What happened in the outside world, by key: the answers to the effects that were counted.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) effects: Mutex<BTreeMap<String, Vec<String>>>,
    calls: AtomicU64,
}

/// What a caller has read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) says: String,
    pub(crate) body: String,
}

impl Told {
    /// Whether it is the operation's own answer.
    pub(crate) fn is_answer(&self) -> bool {
        self.status == 201
    }

    /// Whether it is an answer that is promised to be given again.
    pub(crate) fn is_promised(&self) -> bool {
        self.is_answer() && self.says != "unrecorded"
    }

    /// Whether the store could not take it.
    pub(crate) fn is_refused(&self) -> bool {
        self.status == 503 && self.body.contains(":store-unavailable")
    }
}

/// All answers that were read, by key, in their order.
pub(crate) type History = BTreeMap<String, Vec<Told>>;

/// What the callers share.
#[derive(Default)]
struct Shared {
    history: Mutex<History>,
    /// Operations that were run and answered.
    ran: AtomicU64,
    /// Requests that the store refused.
    refused: AtomicU64,
    /// A promise that was seen broken at once.
    broken: Mutex<Option<String>>,
    stop: AtomicBool,
}

/// Callers at work.
pub(crate) struct Load {
    pub(crate) world: Arc<World>,
    pub(crate) upstream: SocketAddr,
    addresses: watch::Sender<Vec<SocketAddr>>,
    shared: Arc<Shared>,
    callers: Vec<JoinHandle<()>>,
}

impl Load {
    /// Callers that wait for the first proxy.
    pub(crate) async fn start(seed: u64, weight: Weight) -> Self {
        let world = Arc::new(World::default());
        let upstream = upstream(Arc::clone(&world), seed, weight.answer_max).await;
        let (sender, addresses) = watch::channel(Vec::new());
        let shared = Arc::new(Shared::default());
        let callers = (0..CALLERS).map(|number| {
            let caller = Caller {
                number,
                random: Random::new(seed.wrapping_add(1_000 + number)),
                weight,
                world: Arc::clone(&world),
                shared: Arc::clone(&shared),
            };
            tokio::spawn(caller.call(addresses.clone()))
        });
        let callers = callers.collect();
        Self { world, upstream, addresses: sender, shared, callers }
    }

    /// Where the proxy listens from now on.
    pub(crate) fn at(&self, proxy: SocketAddr) {
        self.addresses.send_replace(vec![proxy]);
    }

    /// Where several listen from now on; each request goes to one of them by chance.
    pub(crate) fn at_any(&self, proxies: &[Proxy]) {
        self.addresses.send_replace(proxies.iter().map(|proxy| proxy.address).collect());
    }

    /// How many operations were run and answered so far.
    pub(crate) fn ran(&self) -> u64 {
        self.shared.ran.load(Ordering::Relaxed)
    }

    /// How many requests the store refused so far.
    pub(crate) fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// Sends the callers home, and returns all they were told.
    pub(crate) async fn end(&mut self) -> Result<History, String> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for caller in self.callers.drain(..) {
            caller.await.map_err(|error| error.to_string())?;
        }
        if let Some(broken) = self.shared.broken.lock().unwrap().take() {
            return Err(broken);
        }
        Ok(std::mem::take(&mut *self.shared.history.lock().unwrap()))
    }
}

/// Counts an effect for each request that it does not refuse, and is sometimes slow to say so.
async fn upstream(world: Arc<World>, seed: u64, answer_max: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let world = Arc::clone(&world);
            let service = service_fn(move |request: Request<Incoming>| {
                let world = Arc::clone(&world);
                async move {
                    let call = world.calls.fetch_add(1, Ordering::Relaxed);
                    let random = Random::new(seed ^ (call << 20));
                    Ok::<_, Infallible>(effect(&world, call, random, answer_max, request).await)
                }
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

async fn effect(
    world: &World,
    call: u64,
    mut random: Random,
    answer_max: u64,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let key = request.headers()["idempotency-key"].to_str().unwrap().to_owned();
    if request.into_body().collect().await.is_err() {
        // Not all of it came, so nothing was done.
        return Response::builder().status(400).body(Full::default()).unwrap();
    }
    sleep(Duration::from_millis(random.below(8))).await;
    if random.below(16) == 0 {
        return Response::builder().status(429).body("slow down".into()).unwrap();
    }
    let padding = "x".repeat(random.below(answer_max) as usize);
    let body = format!("effect {call} of {key} {padding}");
    world.effects.lock().unwrap().entry(key).or_default().push(body.clone());
    sleep(Duration::from_millis(random.below(8))).await;
    Response::builder().status(201).body(body.into()).unwrap()
}

struct Caller {
    number: u64,
    random: Random,
    weight: Weight,
    world: Arc<World>,
    shared: Arc<Shared>,
}

impl Caller {
    /// A key after the other, each asked for several times, sometimes hanging up.
    async fn call(mut self, mut addresses: watch::Receiver<Vec<SocketAddr>>) {
        // Until the first proxy listens.
        if addresses.wait_for(|it| !it.is_empty()).await.is_err() {
            return;
        }
        let mut number = 0;
        while !self.shared.stop.load(Ordering::Relaxed) {
            let key = format!("key-{}-{number}", self.number);
            number += 1;
            self.shared.history.lock().unwrap().entry(key.clone()).or_default();
            for turn in 0..1 + self.random.below(4) {
                let places = addresses.borrow().clone();
                self.turn(&places, &key, turn == 0).await;
            }
        }
    }

    async fn turn(&mut self, places: &[SocketAddr], key: &str, is_first: bool) {
        let [one, two] = [0, 1].map(|_| places[self.random.below(places.len() as u64) as usize]);
        let patience = Duration::from_millis(1 + self.random.below(self.weight.patience_max));
        // Half of the duplicates come at once.
        let twin = self.random.below(2) == 0;
        let asked = timeout(patience, ask(one, key));
        let (one, two) = if twin {
            tokio::join!(asked, timeout(patience, ask(two, key)))
        } else {
            (asked.await, Ok(None))
        };
        let told: Vec<Told> = [one, two].into_iter().filter_map(|it| it.ok().flatten()).collect();
        self.note(key, &told, is_first && !twin);
        if told.iter().all(Told::is_refused) {
            // Nobody listens, most likely, or there is no room.
            sleep(Duration::from_millis(20)).await;
        }
        self.shared.history.lock().unwrap().entry(key.to_owned()).or_default().extend(told);
    }

    /// Counts, and looks whether a refused claim has had an effect all the same.
    fn note(&self, key: &str, told: &[Told], is_only: bool) {
        let Shared { ran, refused, broken, .. } = &*self.shared;
        ran.fetch_add(
            told.iter().filter(|it| it.says == "executed").count() as u64,
            Ordering::Relaxed,
        );
        let no = told.iter().filter(|it| it.is_refused()).count();
        refused.fetch_add(no as u64, Ordering::Relaxed);
        if is_only && 0 < no && self.world.effects.lock().unwrap().contains_key(key) {
            *broken.lock().unwrap() = Some(format!("{key}: refused, and run all the same"));
        }
    }
}

/// One request on a connection of its own; `None` if no whole answer came.
pub(crate) async fn ask(address: SocketAddr, key: &str) -> Option<Told> {
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
