//! A connection that loses answers on purpose, always after the request was delivered.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::serve::{Answer, NoAnswer, say};

/// How long a client that waits for a lost answer is left waiting: longer than its patience.
const SILENCE: Duration = Duration::from_secs(10);
/// The largest request, in bytes.
const REQUEST_BYTES_MAX: usize = 64 << 10;

/// Carries requests to a server and loses some of its answers. Two of them with one seed lose
/// the answers with the same numbers.
pub(super) struct BadConnection {
    to: SocketAddr,
    seed: u64,
    answers: AtomicU64,
}

impl BadConnection {
    pub(super) const fn new(to: SocketAddr, seed: u64) -> Self {
        Self { to, seed, answers: AtomicU64::new(0) }
    }

    /// Counts from the first answer again.
    pub(super) fn reset(&self) {
        self.answers.store(0, Ordering::Relaxed);
    }

    /// Delivers the request to `path`, and its answer unless that is to be lost.
    pub(super) async fn carry(
        &self,
        request: Request<Incoming>,
        path: &'static str,
    ) -> Result<Answer, NoAnswer> {
        let number = self.answers.fetch_add(1, Ordering::Relaxed) + 1;
        let (mut head, body) = request.into_parts();
        let Ok(body) = Limited::new(body, REQUEST_BYTES_MAX).collect().await else {
            return Ok(say(StatusCode::PAYLOAD_TOO_LARGE, "That is more than an order form."));
        };
        head.uri = Uri::from_static(path);
        head.headers.remove(CONNECTION);
        if let Ok(host) = HeaderValue::from_str(&self.to.to_string()) {
            head.headers.insert(HOST, host);
        }
        let request = Request::from_parts(head, Full::new(body.to_bytes()));
        // A task of its own: a client that hangs up does not take the request back.
        let delivered = tokio::spawn(deliver(self.to, request)).await;
        if is_lost(self.seed, number) {
            tokio::time::sleep(SILENCE).await;
            return Err(NoAnswer);
        }
        match delivered {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => Err(NoAnswer),
        }
    }
}

/// Whether the answer with this number, counted from 1, is lost: the first one always, then about
/// one in four.
fn is_lost(seed: u64, number: u64) -> bool {
    // The mixing steps of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
    // generators, 2014).
    let mut mixed = seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    number == 1 || mixed.is_multiple_of(4)
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn deliver(to: SocketAddr, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
    let stream = TcpStream::connect(to).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let carried = tokio::spawn(connection);
    let (mut head, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    drop(sender);
    carried.abort();
    head.headers.remove(CONNECTION);
    Ok(Response::from_parts(head, Full::new(body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_answer_is_lost_and_a_retry_gets_through_soon() {
        for seed in 0..1000 {
            assert!(is_lost(seed, 1));
        }
        // The seed that a user gets: three taps and one retry show the difference at once.
        let lost: Vec<u64> = (1..=24).filter(|it| is_lost(super::super::SEED, *it)).collect();
        assert_eq!(lost, [1, 6, 19, 22]);
    }
}
