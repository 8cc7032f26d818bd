//! Requests that change the protocol, such as WebSocket: joined end to end, without a key.

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::Outgoing;
use crate::body::AnswerBody;

/// The client's side of an upgrade.
pub(crate) struct Upgrade {
    protocol: HeaderValue,
    client: OnUpgrade,
}

/// What a request wants to change to, if it does.
pub(crate) fn take(request: &mut Request<Outgoing>) -> Option<Upgrade> {
    let protocol = request.headers().get(header::UPGRADE)?.clone();
    let client = request.extensions_mut().remove::<OnUpgrade>()?;
    Some(Upgrade { protocol, client })
}

impl Upgrade {
    /// Says so to the next hop.
    pub(crate) fn announce(&self, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, self.protocol.clone());
    }

    /// Joins both sides if the upstream agrees.
    pub(crate) fn join(self, mut answer: Response<AnswerBody>) -> Response<AnswerBody> {
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            onlyonce_http::headers::strip_hop_by_hop(answer.headers_mut());
            return answer;
        }
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
