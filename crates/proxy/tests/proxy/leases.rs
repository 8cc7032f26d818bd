//! Leases that end because the store cannot be reached: nothing more of a request is sent, and the
//! answer to one that was sent is given.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use onlyonce::Settings;
use onlyonce::store::Store;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};

use crate::common::{Proxy, Told, orders, post, proxy, proxy_with, send, upstream};
use crate::stores::{Away, Fickle};

/// More than the buffers of a connection take.
const LARGE: usize = 15 << 20;
/// Long enough for the upstream to be reached on a busy machine.
const LEASE: &str = "[policy]\nlease = \"2s\"\nskew_max = \"10ms\"\n";

/// An upstream that reads the head of a request, and the rest when it is let go; it charges for
/// what has come whole.
struct Reluctant {
    address: SocketAddr,
    charges: Arc<AtomicU32>,
    /// A head was read.
    begun: Arc<Notify>,
    go_on: Arc<Notify>,
    /// It has read all there was.
    ended: Arc<Notify>,
}

impl Reluctant {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let [begun, go_on, ended] = [(); 3].map(|()| Arc::new(Notify::new()));
        let charges = Arc::new(AtomicU32::new(0));
        let this = Self { address, charges, begun, go_on, ended };
        let parts = (this.charges.clone(), this.begun.clone(), this.go_on.clone());
        let ended = this.ended.clone();
        tokio::spawn(async move {
            let (charges, begun, go_on) = parts;
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            begun.notify_one();
            go_on.notified().await;
            let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
            let length = head.split_once("content-length: ").unwrap().1;
            let mut body = vec![0; length.split_once('\r').unwrap().0.parse().unwrap()];
            if stream.read_exact(&mut body).await.is_ok() {
                charges.fetch_add(1, Ordering::SeqCst);
                let answer = b"HTTP/1.1 201 Created\r\ncontent-length: 5\r\n\r\norder";
                stream.write_all(answer).await.unwrap();
            }
            ended.notify_one();
        });
        this
    }
}

/// A proxy that loses its store once the upstream has begun to read.
async fn lost(upstream: &Reluctant, body: Bytes) -> (Proxy, Arc<Fickle>, Begun) {
    let store = Fickle::new();
    let settings = Settings { store_wait: Duration::from_millis(50), ..Settings::default() };
    let as_store: Arc<dyn Store> = store.clone();
    let proxy = proxy_with(settings, as_store, upstream.address, LEASE).await;
    let request: Request<Full<Bytes>> = post("tap", "").map(|_| Full::from(body));
    let address = proxy.address;
    let begun = tokio::spawn(async move { send(address, request).await });
    upstream.begun.notified().await;
    store.set(Away::Refuses);
    (proxy, store, begun)
}

type Begun = tokio::task::JoinHandle<Told>;

#[tokio::test]
async fn the_rest_of_a_request_is_not_sent_when_its_lease_is_over() {
    let upstream = Reluctant::open().await;
    let (proxy, store, begun) = lost(&upstream, vec![b'x'; LARGE].into()).await;
    let told = begun.await.unwrap();
    assert_eq!((told.status, &*told.problem()), (504, "outcome-unknown"));
    upstream.go_on.notify_one();
    upstream.ended.notified().await;
    assert_eq!(upstream.charges.load(Ordering::SeqCst), 0);
    store.set(Away::No);
    let again = post("tap", "").map(|_| Full::from(Bytes::from(vec![b'x'; LARGE])));
    while send(proxy.address, again.clone()).await.problem() != "outcome-unknown" {}
}

#[tokio::test]
async fn the_answer_to_a_request_that_was_sent_is_given_however_late_it_is() {
    let upstream = Reluctant::open().await;
    let (proxy, store, begun) = lost(&upstream, "seat".into()).await;
    let until = proxy.engine.now().plus(Duration::from_secs(4));
    while proxy.engine.now() < until {
        tokio::task::yield_now().await;
    }
    upstream.go_on.notify_one();
    let told = begun.await.unwrap();
    assert_eq!((told.status, &*told.body, told.says()), (201, &b"order"[..], "unrecorded"));
    store.set(Away::No);
    let again = || post("tap", "seat");
    assert_eq!(send(proxy.address, again()).await.problem(), "outcome-unknown");
    assert_eq!(upstream.charges.load(Ordering::SeqCst), 1);
}

/// A door before an upstream that speaks TLS: who has come in says nothing before it is let go.
async fn door(upstream: SocketAddr) -> (u16, Arc<Notify>, Arc<Notify>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let [came, go_on] = [(); 2].map(|()| Arc::new(Notify::new()));
    let (comes, goes_on) = (came.clone(), go_on.clone());
    tokio::spawn(async move {
        let mut is_first = true;
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            if std::mem::take(&mut is_first) {
                comes.notify_one();
                goes_on.notified().await;
            }
            let mut inside = TcpStream::connect(upstream).await.unwrap();
            tokio::spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut inside).await;
            });
        }
    });
    (port, came, go_on)
}

#[tokio::test]
async fn nothing_is_sent_on_a_connection_that_took_longer_than_the_lease() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let named = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = write("cert.pem", named.cert.pem());
    let key = write("key.pem", named.signing_key.serialize_pem());
    let shop = upstream(orders(), Semaphore::MAX_PERMITS).await;
    let tls = format!("[tls]\ncertificate = \"{certificate}\"\nkey = \"{key}\"");
    let inner = proxy(shop.address, &tls).await;
    let (port, came, go_on) = door(inner.address).await;

    let store = Fickle::new();
    let settings = Settings { store_wait: Duration::from_millis(50), ..Settings::default() };
    let lines = format!(
        "upstream_trust = \"{certificate}\"\nupstream = \"https://localhost:{port}\"\n\
         {LEASE}[limits]\nconnect_time = \"60s\"\n"
    );
    let as_store: Arc<dyn Store> = store.clone();
    let outer = proxy_with(settings, as_store, inner.address, &lines).await;
    let address = outer.address;
    let begun = tokio::spawn(async move { send(address, post("tap", "seat")).await });
    came.notified().await;
    store.set(Away::Refuses);
    // Whatever was renewed before the store went away is over by then.
    let until = outer.engine.now().plus(Duration::from_secs(4));
    while outer.engine.now() < until {
        tokio::task::yield_now().await;
    }
    store.set(Away::No);
    go_on.notify_one();
    let told = begun.await.unwrap();
    assert_eq!((told.status, &*told.problem()), (502, "upstream-unreachable"), "{told:?}");
    assert_eq!((told.says(), shop.runs()), ("not-executed", 0));
    let again = send(outer.address, post("tap", "seat")).await;
    assert_eq!((again.status, again.says(), shop.runs()), (201, "executed", 1), "{again:?}");
}
