//! A client of one member: calls by gRPC, and a token where there is a password.

use std::sync::{Arc, PoisonError, RwLock};

use futures_util::{Stream, stream};
use http::uri::PathAndQuery;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService as _};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::wire::{
    Alarms, Ask, Compact, Done, KeepAlive, Lease, Leased, Login, MemberList, Range, Ranged,
    Status as Health, Token, Txn, TxnDone, Watch, Watched,
};

/// The largest answer, in bytes: some records of the largest size.
const ANSWER_BYTES_MAX: usize = 128 << 20;
/// The largest page, in bytes.
const PAGE_BYTES_MAX: usize = 8 << 20;

/// A client. Cheap to clone; it connects when it is used.
#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
    /// Where it is, if it is spoken to without TLS.
    plain: Option<Arc<str>>,
    login: Option<Arc<Login>>,
    token: Arc<RwLock<Option<MetadataValue<Ascii>>>>,
}

impl Client {
    pub(crate) fn new(channel: Channel, plain: Option<Arc<str>>, login: Option<Login>) -> Self {
        Self { channel, plain, login: login.map(Arc::new), token: Arc::default() }
    }

    pub(crate) async fn txn(&self, txn: Txn) -> Result<TxnDone, Status> {
        self.call("/etcdserverpb.KV/Txn", txn).await
    }

    pub(crate) async fn range(&self, range: Range) -> Result<Ranged, Status> {
        self.call("/etcdserverpb.KV/Range", range).await
    }

    pub(crate) async fn compact(&self, revision: i64) -> Result<Done, Status> {
        self.call("/etcdserverpb.KV/Compact", Compact { revision }).await
    }

    pub(crate) async fn grant(&self, seconds: i64) -> Result<Leased, Status> {
        self.call("/etcdserverpb.Lease/LeaseGrant", Lease { seconds }).await
    }

    /// Renews a lease; says for how many seconds it stands, zero if it is over.
    pub(crate) async fn renew(&self, id: i64) -> Result<i64, Status> {
        let mut grpc = self.ready().await?;
        let asks = stream::iter([KeepAlive { id }]);
        let request = self.request(asks)?;
        let path = PathAndQuery::from_static("/etcdserverpb.Lease/LeaseKeepAlive");
        let codec = ProstCodec::<KeepAlive, Leased>::default();
        let answers = grpc.streaming(request, path, codec).await?;
        match answers.into_inner().message().await? {
            Some(leased) => Ok(leased.seconds),
            None => Err(Status::unavailable("the stream ended")),
        }
    }

    /// What happens to the keys that are named meanwhile. Nothing is answered before the first is
    /// named.
    pub(crate) async fn watch(
        &self,
        asks: impl Stream<Item = Watch> + Send + 'static,
    ) -> Result<Streaming<Watched>, Status> {
        let mut grpc = self.ready().await?;
        let request = self.request(asks)?;
        let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
        let codec = ProstCodec::<Watch, Watched>::default();
        Ok(grpc.streaming(request, path, codec).await?.into_inner())
    }

    pub(crate) async fn health(&self) -> Result<Health, Status> {
        self.call("/etcdserverpb.Maintenance/Status", Ask {}).await
    }

    pub(crate) async fn alarms(&self) -> Result<Alarms, Status> {
        // The question that is zero throughout is "which alarms are raised".
        self.call("/etcdserverpb.Maintenance/Alarm", Ask {}).await
    }

    pub(crate) async fn members(&self) -> Result<MemberList, Status> {
        self.call("/etcdserverpb.Cluster/MemberList", Ask {}).await
    }

    /// What it shows to everybody who asks for this page, if it does. It has gRPC and pages at one
    /// port: with TLS it tells them apart by what is asked, without it by the version of HTTP.
    pub(crate) async fn page(&self, path: &'static str) -> Option<String> {
        let request = http::Request::get(path);
        let body = match &self.plain {
            None => {
                let mut channel = self.channel.clone();
                std::future::poll_fn(|context| channel.poll_ready(context)).await.ok()?;
                let answer = channel.call(request.body(Body::empty()).ok()?).await.ok()?;
                whole(answer).await
            }
            Some(host) => {
                let stream = TcpStream::connect(&**host).await.ok()?;
                let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
                let (mut asking, connection) = shaken.ok()?;
                let request = request.header(http::header::HOST, &**host);
                let request = request.body(Empty::<bytes::Bytes>::new()).ok()?;
                let answer = async { whole(asking.send_request(request).await.ok()?).await };
                // The connection ends with the answer.
                tokio::select! {
                    body = answer => body,
                    _ = connection => None,
                }
            }
        }?;
        String::from_utf8(body).ok()
    }

    /// One call. A token that is not taken any more is asked for anew: nothing has happened then.
    async fn call<Q, A>(&self, path: &'static str, question: Q) -> Result<A, Status>
    where
        Q: prost::Message + Clone + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let has_token = self.token.read().unwrap_or_else(PoisonError::into_inner).is_some();
        if self.login.is_some() && !has_token {
            self.log_in().await?;
        }
        match self.send(path, question.clone()).await {
            Err(status) if self.login.is_some() && status.code() == Code::Unauthenticated => {
                self.log_in().await?;
                self.send(path, question).await
            }
            other => other,
        }
    }

    async fn log_in(&self) -> Result<(), Status> {
        let Some(login) = &self.login else { return Ok(()) };
        let path = "/etcdserverpb.Auth/Authenticate";
        let token: Token = self.send(path, Login::clone(login)).await?;
        let token = MetadataValue::try_from(token.token)
            .map_err(|_| Status::unauthenticated("the token is none"))?;
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = Some(token);
        Ok(())
    }

    async fn send<Q, A>(&self, path: &'static str, question: Q) -> Result<A, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let mut grpc = self.ready().await?;
        let request = self.request(question)?;
        let path = PathAndQuery::from_static(path);
        Ok(grpc.unary(request, path, ProstCodec::<Q, A>::default()).await?.into_inner())
    }

    async fn ready(&self) -> Result<Grpc<Channel>, Status> {
        let grpc = Grpc::new(self.channel.clone());
        let mut grpc = grpc.max_decoding_message_size(ANSWER_BYTES_MAX);
        grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
        Ok(grpc)
    }

    fn request<Q>(&self, question: Q) -> Result<Request<Q>, Status> {
        let mut request = Request::new(question);
        // A member that knows no leader says so at once.
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        let token = self.token.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(token) = token {
            request.metadata_mut().insert("token", token);
        }
        Ok(request)
    }
}

/// The body of a page that is there.
async fn whole<B>(answer: http::Response<B>) -> Option<Vec<u8>>
where
    B: hyper::body::Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let is_there = answer.status() == http::StatusCode::OK;
    let body = Limited::new(answer.into_body(), PAGE_BYTES_MAX).collect().await.ok()?;
    is_there.then(|| body.to_bytes().to_vec())
}
