//! A mail server that does what it is told at each moment, and counts the ends of contents that it
//! has seen.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use onlyonce_smtp::{Relay, Security, Waits};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::{TcpListener, TcpStream};

/// What the server does at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Does {
    Usual,
    Says(&'static str),
    Closes,
    /// Never answers.
    Hangs,
}

/// The moments of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    Greeting,
    Ehlo,
    Mail,
    Rcpt,
    Data,
    Chunk,
    End,
}

/// What to do at a moment, for this recipient, if one was named.
type Manner = Box<dyn FnMut(At, &str) -> Does + Send>;

#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) connections: usize,
    /// Recipient and content of each message whose end was seen.
    pub(crate) ended: Vec<(String, Vec<u8>)>,
}

struct Shared {
    chunking: bool,
    seen: Mutex<Seen>,
    manner: Mutex<Manner>,
}

pub(crate) struct Server {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

impl Server {
    pub(crate) async fn start(chunking: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let manner: Manner = Box::new(|_, _| Does::Usual);
        let (seen, manner) = (Mutex::default(), Mutex::new(manner));
        let shared = Arc::new(Shared { chunking, seen, manner });
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                serving.seen.lock().unwrap().connections += 1;
                let shared = Arc::clone(&serving);
                tokio::spawn(async move { shared.serve(BufStream::new(stream)).await });
            }
        });
        Self { addr, shared }
    }

    /// From now on.
    pub(crate) fn manner(&self, manner: impl FnMut(At, &str) -> Does + Send + 'static) {
        *self.shared.manner.lock().unwrap() = Box::new(manner);
    }

    pub(crate) fn relay(&self, waits: Waits) -> Relay {
        Relay {
            host: "127.0.0.1".to_owned(),
            port: self.addr.port(),
            security: Security::None,
            login: None,
            hello: "shop.example".to_owned(),
            waits,
        }
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.seen.lock().unwrap().connections
    }

    /// The contents whose end was seen for this recipient.
    pub(crate) fn ended(&self, to: &str) -> Vec<Vec<u8>> {
        let seen = self.shared.seen.lock().unwrap();
        seen.ended.iter().filter(|(it, _)| it == to).map(|(_, content)| content.clone()).collect()
    }

    pub(crate) fn all_ended(&self) -> usize {
        self.shared.seen.lock().unwrap().ended.len()
    }
}

type Stream = BufStream<TcpStream>;

impl Shared {
    /// `false` if the session is over.
    async fn act(&self, stream: &mut Stream, at: At, to: &str, usual: &str) -> bool {
        let does = (self.manner.lock().unwrap())(at, to);
        let said = match does {
            Does::Usual => usual,
            Does::Says(said) => said,
            Does::Closes => return false,
            Does::Hangs => return std::future::pending().await,
        };
        let told = stream.write_all(format!("{said}\r\n").as_bytes()).await;
        told.is_ok() && stream.flush().await.is_ok()
    }

    async fn serve(&self, mut stream: Stream) {
        let stream = &mut stream;
        if !self.act(stream, At::Greeting, "", "220 mx.example ESMTP").await {
            return;
        }
        let (mut to, mut content) = (String::new(), Vec::new());
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            let verb = line.split_whitespace().next().unwrap_or_default();
            let goes_on = match verb {
                "EHLO" if self.chunking => {
                    let offers = "250-mx.example\r\n250-CHUNKING\r\n250 HELP";
                    self.act(stream, At::Ehlo, "", offers).await
                }
                "EHLO" => self.act(stream, At::Ehlo, "", "250-mx.example\r\n250 HELP").await,
                "MAIL" => {
                    content.clear();
                    self.act(stream, At::Mail, "", "250 2.1.0 ok").await
                }
                "RCPT" => {
                    to = line.split(['<', '>']).nth(1).unwrap().to_owned();
                    self.act(stream, At::Rcpt, &to, "250 2.1.5 ok").await
                }
                "DATA" => {
                    self.act(stream, At::Data, &to, "354 go on").await
                        && dotted(stream, &mut content).await
                        && self.end(stream, &to, &content).await
                }
                "BDAT" => {
                    let mut words = line.split_whitespace().skip(1);
                    let mut chunk = vec![0; words.next().unwrap().parse().unwrap()];
                    if stream.read_exact(&mut chunk).await.is_err() {
                        return;
                    }
                    content.extend(chunk);
                    if words.next() == Some("LAST") {
                        self.end(stream, &to, &content).await
                    } else {
                        self.act(stream, At::Chunk, &to, "250 2.0.0 got it").await
                    }
                }
                "QUIT" => return,
                other => panic!("{other}"),
            };
            if !goes_on {
                return;
            }
        }
    }

    async fn end(&self, stream: &mut Stream, to: &str, content: &[u8]) -> bool {
        self.seen.lock().unwrap().ended.push((to.to_owned(), content.to_vec()));
        self.act(stream, At::End, to, "250 2.0.0 Ok: queued as 4F8A31C2E7").await
    }
}

/// Reads up to the dot; `false` if the connection ends before it.
async fn dotted(stream: &mut Stream, content: &mut Vec<u8>) -> bool {
    loop {
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line).await.unwrap_or(0) == 0 || !line.ends_with(b"\r\n") {
            return false;
        }
        if line == b".\r\n" {
            return true;
        }
        content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}
