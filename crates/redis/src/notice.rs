//! Notices by publishing, on a connection of their own to each server.
//!
//! Who waits for a key subscribes to a channel of it at the server that has the key; a swap that
//! ends an attempt publishes there if somebody has subscribed. So nothing is told, and nothing it
//! costs, of keys that nobody waits for, and a cluster passes on to all of its nodes only the rest.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use onlyonce_core::KeyId;
use onlyonce_store::{StoreError, Teller, Want};
use redis::RedisError;
use redis::aio::{PubSubSink, PubSubStream};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use crate::inner::Inner;
use crate::layout::{BUCKETS, bucket};
use crate::map::Part;
use crate::script::Script;
use crate::server::Server;

/// How long a server may take for anything here.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How often the connections are tried out.
const TURN: Duration = Duration::from_secs(20);
/// After a connection that was lost or could not be made: at first, and at last.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// What has come and was not looked at yet; what comes more is lost.
const HEARD_MAX: usize = 1_024;
/// Channels in one command.
const CHANNELS_MAX: usize = 1_000;

/// Tells for as long as somebody listens.
pub(crate) async fn run(inner: Arc<Inner>, teller: Teller) {
    let mut pause = PAUSE;
    loop {
        let why = match Lines::open(&inner).await {
            Ok(mut lines) => {
                pause = PAUSE;
                match lines.serve(&inner, &teller).await {
                    Ok(()) => return,
                    Err(why) => why,
                }
            }
            Err(why) => why,
        };
        teller.lost(&why);
        inner.map.doubt().await;
        let over = async { while teller.wants().await.is_some() {} };
        if timeout(pause, over).await.is_ok() {
            return;
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// A connection that listens at each server.
struct Lines {
    lines: Vec<Line>,
    /// Which of them each bucket is heard on.
    of_bucket: Vec<usize>,
    heard: Receiver<Heard>,
    /// What reads them; it ends with this.
    reading: JoinSet<()>,
}

struct Line {
    server: Arc<Server>,
    sink: PubSubSink,
}

enum Heard {
    /// Something was published.
    On(String),
    /// A connection was lost.
    Lost(String),
}

impl Lines {
    /// Connects to all servers, and makes sure that what is published there is heard.
    async fn open(inner: &Inner) -> Result<Self, String> {
        let (say, heard) = channel(HEARD_MAX);
        let (of_bucket, reading) = (Vec::new(), JoinSet::new());
        let mut lines = Self { lines: Vec::new(), of_bucket, heard, reading };
        for bucket in 0..BUCKETS {
            let server =
                inner.map.server(Part::Bucket(bucket)).await.map_err(|it| it.to_string())?;
            let known = lines.lines.iter().position(|line| Arc::ptr_eq(&line.server, &server));
            let at = match known {
                Some(at) => at,
                None => {
                    let opened = timeout(ANSWER_MAX, server.subscriber()).await;
                    let opened = opened.map_err(|_| silent(&server))?;
                    let (sink, stream) = opened.map_err(|error| error.to_string())?.split();
                    let place = server.place().to_owned();
                    lines.reading.spawn(read(stream, say.clone(), place));
                    lines.lines.push(Line { server, sink });
                    lines.try_out(inner, bucket).await?;
                    lines.lines.len() - 1
                }
            };
            lines.of_bucket.push(at);
        }
        Ok(lines)
    }

    /// Has something published at the newest server, and waits until it is heard.
    async fn try_out(&mut self, inner: &Inner, bucket: u8) -> Result<(), String> {
        let Some(line) = self.lines.last_mut() else { return Ok(()) };
        let mut word = [0; 16];
        getrandom::fill(&mut word).map_err(|error| format!("no random numbers: {error}"))?;
        let channel = inner.layout.ended_in(bucket, KeyId::from_bytes(word));
        line.subscribe(std::slice::from_ref(&channel)).await?;
        let said = async {
            let link = inner.link(bucket).await?;
            link.run(Script::Tell, &[], &[channel.as_bytes()]).await
        };
        said.await.map_err(|fault| StoreError::from(fault).to_string())?;
        let hearing = async {
            loop {
                match self.heard.recv().await {
                    Some(Heard::On(on)) if on == channel => return Ok(()),
                    Some(Heard::On(_)) => {}
                    Some(Heard::Lost(why)) => return Err(why),
                    None => return Err("nothing is read".to_owned()),
                }
            }
        };
        let place = line.server.place();
        let deaf =
            || format!("{place}: what is published is not heard; our user may lack the right");
        timeout(ANSWER_MAX, hearing).await.unwrap_or_else(|_| Err(deaf()))?;
        line.unsubscribe(&[channel]).await
    }

    /// Until nobody listens any more, or a connection is lost.
    async fn serve(&mut self, inner: &Inner, teller: &Teller) -> Result<(), String> {
        self.subscribe(inner, &teller.wanted()).await?;
        teller.flows();
        let mut turn = interval(TURN);
        loop {
            tokio::select! {
                wants = teller.wants() => {
                    let Some(wants) = wants else { return Ok(()) };
                    let (mut begun, mut ended) = (Vec::new(), Vec::new());
                    for want in wants {
                        match want {
                            Want::Begin(id) => begun.push(id),
                            Want::End(id) => ended.push(id),
                        }
                    }
                    self.subscribe(inner, &begun).await?;
                    // What changed before is not published any more.
                    begun.into_iter().for_each(|id| teller.tell(id));
                    self.unsubscribe(inner, &ended).await?;
                }
                heard = self.heard.recv() => match heard {
                    Some(Heard::On(channel)) => {
                        let id = channel.rsplit(':').next().and_then(KeyId::from_hex);
                        id.into_iter().for_each(|id| teller.tell(id));
                    }
                    Some(Heard::Lost(why)) => return Err(why),
                    None => return Err("nothing is read".to_owned()),
                },
                _ = turn.tick() => self.look_after(inner).await?,
            }
        }
    }

    /// That all servers answer, and are still the ones that have the keys.
    async fn look_after(&mut self, inner: &Inner) -> Result<(), String> {
        for (bucket, at) in (0..BUCKETS).zip(&self.of_bucket) {
            let server =
                inner.map.server(Part::Bucket(bucket)).await.map_err(|it| it.to_string())?;
            if server.address != self.lines[*at].server.address {
                return Err(format!(
                    "{}: its keys are elsewhere now",
                    self.lines[*at].server.place()
                ));
            }
        }
        for line in &mut self.lines {
            let ping = timeout(ANSWER_MAX, line.sink.ping::<redis::Value>());
            answered(&line.server, ping.await.map(|pong| pong.map(drop)))?;
        }
        Ok(())
    }

    async fn subscribe(&mut self, inner: &Inner, ids: &[KeyId]) -> Result<(), String> {
        for (line, channels) in self.channels(inner, ids) {
            for channels in channels.chunks(CHANNELS_MAX) {
                line.subscribe(channels).await?;
            }
        }
        Ok(())
    }

    async fn unsubscribe(&mut self, inner: &Inner, ids: &[KeyId]) -> Result<(), String> {
        for (line, channels) in self.channels(inner, ids) {
            for channels in channels.chunks(CHANNELS_MAX) {
                line.unsubscribe(channels).await?;
            }
        }
        Ok(())
    }

    /// The channels of these keys at each server.
    fn channels(
        &mut self,
        inner: &Inner,
        ids: &[KeyId],
    ) -> impl Iterator<Item = (&mut Line, Vec<String>)> {
        let mut channels = vec![Vec::new(); self.lines.len()];
        for id in ids {
            channels[self.of_bucket[usize::from(bucket(*id))]].push(inner.layout.ended(*id));
        }
        self.lines.iter_mut().zip(channels)
    }
}

impl Line {
    async fn subscribe(&mut self, channels: &[String]) -> Result<(), String> {
        let asked = timeout(ANSWER_MAX, self.sink.subscribe(channels)).await;
        answered(&self.server, asked)
    }

    async fn unsubscribe(&mut self, channels: &[String]) -> Result<(), String> {
        let asked = timeout(ANSWER_MAX, self.sink.unsubscribe(channels)).await;
        answered(&self.server, asked)
    }
}

/// Reads one connection to its end.
async fn read(mut stream: PubSubStream, say: Sender<Heard>, place: String) {
    while let Some(said) = stream.next().await {
        // Always read on: a server keeps for us what we do not read, and then cuts us off.
        let _ = say.try_send(Heard::On(said.get_channel_name().to_owned()));
    }
    let _ = say.send(Heard::Lost(format!("{place}: the connection was lost"))).await;
}

fn answered(
    server: &Server,
    asked: Result<Result<(), RedisError>, tokio::time::error::Elapsed>,
) -> Result<(), String> {
    let asked = asked.map_err(|_| silent(server))?;
    asked.map_err(|error| format!("{}: {error}", server.place()))
}

fn silent(server: &Server) -> String {
    format!("{}: it does not answer", server.place())
}
