//! An API that makes and ends things and misbehaves where it is told to. All that was ever made is
//! counted, and all that was ever asked for.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

/// What it does when a thing is to be made; or, in the same way, to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Makes it and says so.
    Answer,
    /// Closes the connection before it has read anything.
    CloseAtOnce,
    /// Reads the request, and closes without having made anything,
    CutBefore,
    /// or having made it,
    CutAfter,
    /// or in the middle of the answer.
    CutInAnswer,
    /// Says nothing, without having made anything,
    SilentBefore,
    /// or having made it.
    SilentAfter,
    /// A gateway says that it does not know; nothing was made,
    GatewayBefore,
    /// or it was.
    GatewayAfter,
    /// Cuts the connection, and makes it a little later.
    Late,
    /// Makes it, and says so without the id; ends it a little later, and says that it will.
    NoId,
    /// Makes nothing and says so.
    Refuse,
    /// Something has its place, or so it says, and nothing was made.
    Taken,
    /// It was made by this very request, which somebody on the way repeated.
    Repeated,
}

impl Manner {
    /// Those after which somebody has to find out.
    pub(crate) const DOUBTFUL: [Self; 11] = [
        Self::CloseAtOnce,
        Self::CutBefore,
        Self::CutAfter,
        Self::CutInAnswer,
        Self::SilentBefore,
        Self::SilentAfter,
        Self::GatewayBefore,
        Self::GatewayAfter,
        Self::Late,
        Self::NoId,
        Self::Repeated,
    ];
}

#[derive(Clone, Debug)]
pub(crate) struct Thing {
    pub(crate) id: String,
    pub(crate) marker: String,
    pub(crate) token: String,
    pub(crate) body: Value,
}

#[derive(Debug)]
struct State {
    manner: Manner,
    ending: Manner,
    things: Vec<Thing>,
    /// Requests to end one: its id and the token, as far as they were read.
    ended: Vec<(String, Value)>,
    /// Requests to make one, as far as they were read.
    asked: Vec<Value>,
    /// Whether a token is acted on once.
    keyed: bool,
    /// What a thing says of itself.
    status: &'static str,
}

#[derive(Clone)]
pub(crate) struct Api {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

/// How much later something is made that comes late.
pub(crate) const LATE: Duration = Duration::from_millis(150);

impl Api {
    pub(crate) fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let state = State {
            manner: Manner::Answer,
            ending: Manner::Answer,
            things: Vec::new(),
            ended: Vec::new(),
            asked: Vec::new(),
            keyed: false,
            status: "active",
        };
        let api =
            Self { address: listener.local_addr().unwrap(), state: Arc::new(Mutex::new(state)) };
        let serving = api.clone();
        // It ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, api) = (stream.unwrap(), serving.clone());
                // A caller that goes away is no news.
                thread::spawn(move || api.serve(&stream));
            }
        });
        api
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn manner(&self, manner: Manner) {
        self.state.lock().unwrap().manner = manner;
    }

    /// What it does when a thing is to be ended.
    pub(crate) fn ending(&self, manner: Manner) {
        self.state.lock().unwrap().ending = manner;
    }

    pub(crate) fn ended(&self) -> Vec<(String, Value)> {
        self.state.lock().unwrap().ended.clone()
    }

    pub(crate) fn keyed(&self) {
        self.state.lock().unwrap().keyed = true;
    }

    pub(crate) fn status(&self, status: &'static str) {
        self.state.lock().unwrap().status = status;
    }

    pub(crate) fn things(&self) -> Vec<Thing> {
        self.state.lock().unwrap().things.clone()
    }

    pub(crate) fn asked(&self) -> Vec<Value> {
        self.state.lock().unwrap().asked.clone()
    }

    /// Somebody else makes one of this marker, or with none.
    pub(crate) fn add(&self, marker: &str) {
        self.make(&json!({ "tags": [marker] }));
    }

    fn make(&self, body: &Value) -> String {
        let mut state = self.state.lock().unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let token = text(&body["token"]);
        let known = state.things.iter().find(|it| state.keyed && it.token == token);
        if let Some(known) = known {
            return known.id.clone();
        }
        let id = format!("lb-{}", state.things.len());
        let (id, marker, body) = (id, text(&body["tags"][0]), body.clone());
        state.things.push(Thing { id: id.clone(), marker, token, body });
        id
    }

    fn serve(&self, mut stream: &TcpStream) -> std::io::Result<()> {
        let closes = {
            let state = self.state.lock().unwrap();
            [(b'P', state.manner), (b'D', state.ending)]
        };
        if closes.iter().any(|(_, manner)| *manner == Manner::CloseAtOnce) {
            // Only what would make or end something is lost: it is seen by its first byte.
            let mut first = [0];
            stream.peek(&mut first)?;
            if closes.contains(&(first[0], Manner::CloseAtOnce)) {
                return Ok(());
            }
        }
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let (mut length, mut field) = (0, String::new());
        while reader.read_line(&mut field)? > 2 {
            if let Some(value) = field.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            field.clear();
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let answer = match line.split(' ').next() {
            Some("POST") => self.create(&body),
            Some("DELETE") => self.end(&line, &body),
            _ => self.show(&line),
        };
        match answer {
            Some((status, text)) => {
                let length = text.len() + usize::from(text.is_empty());
                let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n");
                stream.write_all(head.as_bytes())?;
                stream.write_all(text.as_bytes())
            }
            None => Ok(()),
        }
    }

    /// The status and body that are answered, if anything is.
    fn create(&self, body: &Value) -> Option<(u16, String)> {
        let manner = {
            let mut state = self.state.lock().unwrap();
            state.asked.push(body.clone());
            state.manner
        };
        let silence = || loop {
            thread::sleep(Duration::from_secs(60));
        };
        let refusal = |text: &str| json!({ "error": text }).to_string();
        match manner {
            Manner::Answer => Some((201, json!({ "id": self.make(body) }).to_string())),
            Manner::CloseAtOnce | Manner::CutBefore => None,
            Manner::CutAfter => {
                self.make(body);
                None
            }
            // Its length says that there is a byte.
            Manner::CutInAnswer => {
                self.make(body);
                Some((201, String::new()))
            }
            Manner::SilentBefore => silence(),
            Manner::SilentAfter => {
                self.make(body);
                silence()
            }
            Manner::GatewayBefore => Some((502, refusal("bad gateway"))),
            Manner::GatewayAfter => {
                self.make(body);
                Some((504, refusal("gateway timeout")))
            }
            Manner::Late => {
                let (api, body) = (self.clone(), body.clone());
                thread::spawn(move || {
                    thread::sleep(LATE);
                    api.make(&body);
                });
                None
            }
            Manner::NoId => {
                self.make(body);
                Some((200, json!({ "done": true }).to_string()))
            }
            Manner::Refuse => Some((422, refusal("no such size"))),
            Manner::Taken => Some((409, refusal("the name is taken"))),
            Manner::Repeated => {
                self.make(body);
                Some((409, refusal("the name is taken")))
            }
        }
    }

    /// The same when a thing is to be ended.
    fn end(&self, line: &str, body: &Value) -> Option<(u16, String)> {
        let id = line.split(' ').nth(1)?.strip_prefix("/things/")?.to_owned();
        let manner = {
            let mut state = self.state.lock().unwrap();
            state.ended.push((id.clone(), body["token"].clone()));
            state.ending
        };
        let api = self.clone();
        let end = move || api.state.lock().unwrap().things.retain(|it| it.id != id);
        let later = |end: Box<dyn FnOnce() + Send>| {
            thread::spawn(move || {
                thread::sleep(LATE);
                end();
            });
        };
        let silence = || loop {
            thread::sleep(Duration::from_secs(60));
        };
        let said = |status: u16| Some((status, "{}".to_owned()));
        match manner {
            Manner::Answer => {
                end();
                said(200)
            }
            Manner::CloseAtOnce | Manner::CutBefore => None,
            Manner::CutAfter => {
                end();
                None
            }
            Manner::CutInAnswer => {
                end();
                Some((200, String::new()))
            }
            Manner::SilentBefore => silence(),
            Manner::SilentAfter => {
                end();
                silence()
            }
            Manner::GatewayBefore => said(502),
            Manner::GatewayAfter => {
                end();
                said(504)
            }
            Manner::Late => {
                later(Box::new(end));
                None
            }
            Manner::NoId => {
                later(Box::new(end));
                said(202)
            }
            Manner::Refuse => said(422),
            Manner::Taken => said(409),
            // The second of the two finds nothing.
            Manner::Repeated => {
                end();
                said(404)
            }
        }
    }

    /// All things, or one of them.
    fn show(&self, line: &str) -> Option<(u16, String)> {
        let state = self.state.lock().unwrap();
        let path = line.split(' ').nth(1).unwrap();
        let status = state.status;
        let shown = |it: &Thing| json!({ "id": it.id, "tags": [it.marker], "state": status });
        if let Some(id) = path.strip_prefix("/things/") {
            let thing = state.things.iter().find(|it| it.id == id);
            return Some(match thing {
                Some(thing) => (200, shown(thing).to_string()),
                None => (404, "{}".to_owned()),
            });
        }
        let things: Vec<Value> = state.things.iter().map(shown).collect();
        Some((200, json!({ "things": things }).to_string()))
    }
}
