//! TLS to a mail server: demanded, checked, and never mixed with what came before it.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::net::SocketAddr;
use std::sync::Arc;

use onlyonce_smtp::{Failed, Relay, Security, Session, Stage, Waits};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

struct Pki {
    client: Arc<ClientConfig>,
    server: TlsAcceptor,
}

fn pki(name: &str) -> Pki {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let certificate = CertificateDer::from(made.cert.der().to_vec());
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    Pki { client: Arc::new(client), server: TlsAcceptor::from(Arc::new(server)) }
}

fn relay(addr: SocketAddr, security: Security) -> Relay {
    let (host, hello) = ("localhost".to_owned(), "shop.example".to_owned());
    Relay { host, port: addr.port(), security, login: None, hello, waits: Waits::default() }
}

async fn said<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufStream<S>, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
}

async fn heard<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufStream<S>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    line
}

/// A server with STARTTLS that says `answer` to it and names itself differently behind it.
async fn starttls(offers: &'static str, answer: &'static str, tls: TlsAcceptor) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut plain = BufStream::new(stream);
        said(&mut plain, "220 mx.example\r\n").await;
        heard(&mut plain).await;
        said(&mut plain, &format!("250-before.example\r\n250 {offers}\r\n")).await;
        if heard(&mut plain).await != "STARTTLS\r\n" {
            return;
        }
        said(&mut plain, answer).await;
        let Ok(stream) = tls.accept(plain.into_inner()).await else { return };
        let mut inside = BufStream::new(stream);
        heard(&mut inside).await;
        said(&mut inside, "250 behind.example\r\n").await;
        heard(&mut inside).await;
    });
    addr
}

async fn connect(relay: &Relay) -> Result<String, Failed> {
    Session::connect(relay).await.map(|session| session.server().to_owned())
}

#[tokio::test]
async fn what_counts_is_what_the_server_says_behind_tls() {
    let pki = pki("localhost");
    let addr = starttls("STARTTLS", "220 go\r\n", pki.server).await;
    let relay = relay(addr, Security::StartTls(pki.client));
    assert_eq!(connect(&relay).await.unwrap(), "behind.example");
}

#[tokio::test]
async fn a_server_without_starttls_or_with_early_bytes_is_not_used() {
    for (offers, answer) in [
        ("SIZE", "220 go\r\n"),
        ("STARTTLS", "454 no\r\n"),
        // Somebody on the way lets the client believe that the server has offered this.
        ("STARTTLS", "220 go\r\n250 CHUNKING\r\n"),
    ] {
        let pki = pki("localhost");
        let addr = starttls(offers, answer, pki.server).await;
        let failed = connect(&relay(addr, Security::StartTls(pki.client))).await.unwrap_err();
        assert_eq!(failed.stage, Stage::Securing, "{offers} {answer}");
    }
}

/// A server with TLS from the first byte.
async fn implicit(tls: TlsAcceptor) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _): (TcpStream, _) = listener.accept().await.unwrap();
        let Ok(stream) = tls.accept(stream).await else { return };
        let mut inside = BufStream::new(stream);
        said(&mut inside, "220 mx.example\r\n").await;
        heard(&mut inside).await;
        said(&mut inside, "250 mx.example\r\n").await;
        heard(&mut inside).await;
    });
    addr
}

#[tokio::test]
async fn tls_from_the_first_byte_is_checked_by_name() {
    let ours = pki("localhost");
    let addr = implicit(ours.server).await;
    assert_eq!(connect(&relay(addr, Security::Tls(ours.client))).await.unwrap(), "mx.example");

    let other = pki("elsewhere.example");
    let addr = implicit(other.server).await;
    let failed = connect(&relay(addr, Security::Tls(other.client))).await.unwrap_err();
    assert_eq!((failed.stage, failed.retryable), (Stage::Securing, true));
}
