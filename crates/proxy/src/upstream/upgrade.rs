//! Requests that change the protocol to WebSocket: joined end to end, without a key.
//!
//! No other protocol is: what is in a tunnel has no keys, and HTTP/2 in one (RFC 7540 section
//! 3.2) would be a way around the proxy. RFC 9110 section 7.8 lets a server answer as if nothing
//! had been asked for, so the request goes on without.

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::Outgoing;
use crate::body::AnswerBody;

/// The client's side of an upgrade.
pub(crate) struct Upgrade {
    protocol: HeaderValue,
    client: OnUpgrade,
}

/// The settings of an upgrade to HTTP/2, which RFC 9113 section 3.1 has taken back.
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// What a request wants to change to, if it does and may.
pub(crate) fn take(request: &mut Request<Outgoing>) -> Option<Upgrade> {
    request.headers_mut().remove(HTTP2_SETTINGS);
    let mut asked = request.headers().get_all(header::UPGRADE).iter();
    let protocol = asked.next().filter(|it| is_allowed(it))?.clone();
    if asked.next().is_some() {
        return None;
    }
    let client = request.extensions_mut().remove::<OnUpgrade>()?;
    Some(Upgrade { protocol, client })
}

fn is_allowed(protocol: &HeaderValue) -> bool {
    protocol.as_bytes().eq_ignore_ascii_case(b"websocket")
}

impl Upgrade {
    /// Says so to the next hop.
    pub(crate) fn announce(&self, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, self.protocol.clone());
    }

    /// Whether the upstream agrees to this and to nothing else.
    pub(crate) fn is_agreed(&self, answer: &Response<AnswerBody>) -> bool {
        answer.headers().get(header::UPGRADE).is_some_and(is_allowed)
    }

    /// Joins both sides: the upstream agrees.
    pub(crate) fn join(self, mut answer: Response<AnswerBody>) -> Response<AnswerBody> {
        let upstream = hyper::upgrade::on(&mut answer);
        let client = self.client;
        tokio::spawn(async move {
            let (Ok(upstream), Ok(client)) = (upstream.await, client.await) else { return };
            let (mut upstream, mut client) = (TokioIo::new(upstream), TokioIo::new(client));
            // Whichever side ends, the other is told by the end of its stream.
            let _ = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
        });
        answer
    }
}
