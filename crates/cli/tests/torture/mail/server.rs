//! The mail server: Postfix or Exim with a sink behind it, or one that refuses now and then.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use onlyonce_testbed::{Exim, MailSink, Postfix, until};

use crate::random::Random;

/// Which server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    #[default]
    Postfix,
    Exim,
    /// The same without CHUNKING: a message ends with a dot.
    PostfixByData,
    EximByData,
    /// One of the test's own, which also refuses: for now, and for good.
    Scripted,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] =
        [Self::Postfix, Self::Exim, Self::PostfixByData, Self::EximByData, Self::Scripted];
}

pub(crate) enum Mx {
    Postfix(Postfix, MailSink),
    Exim(Exim, MailSink),
    Scripted(Scripted),
}

impl Mx {
    pub(crate) fn start(kind: Kind, seed: u64) -> Self {
        let sink = MailSink::open();
        let to = Some(sink.address());
        match kind {
            Kind::Postfix => Self::Postfix(Postfix::start(to), sink),
            Kind::Exim => Self::Exim(Exim::start(to), sink),
            Kind::PostfixByData => {
                let settings = "smtpd_discard_ehlo_keywords = chunking\n";
                Self::Postfix(Postfix::start_with(to, settings), sink)
            }
            Kind::EximByData => {
                Self::Exim(Exim::start_with(to, "chunking_advertise_hosts =\n"), sink)
            }
            Kind::Scripted => Self::Scripted(Scripted::start(seed)),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Postfix(it, _) => it.address(),
            Self::Exim(it, _) => it.address(),
            Self::Scripted(it) => it.address,
        }
    }

    /// What its probe needs in its environment.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Postfix(it, _) => it.environment().into_iter().collect(),
            Self::Exim(it, _) => {
                let folder = it.program().parent().map(|it| it.display().to_string());
                vec![("PATH", format!("{}:/usr/bin:/bin", folder.unwrap_or_default()))]
            }
            Self::Scripted(_) => Vec::new(),
        }
    }

    /// Who can be asked, if anybody can.
    pub(crate) fn probe(&self) -> Option<String> {
        match self {
            Self::Postfix(it, _) => Some(format!("postfix:{}", it.config().display())),
            Self::Exim(it, _) => Some(format!("exim:{}", it.config().display())),
            Self::Scripted(_) => None,
        }
    }

    /// It refuses nothing any more.
    pub(crate) fn behaves(&self) {
        if let Self::Scripted(it) = self {
            it.shared.behaves.store(true, Ordering::SeqCst);
        }
    }

    /// How often it has taken a message for each recipient: what has arrived behind it, once its
    /// queue is empty.
    pub(crate) fn taken(&self) -> BTreeMap<String, usize> {
        let sink = match self {
            Self::Postfix(it, sink) => {
                until("an empty queue", || it.queue().is_empty().then_some(()));
                sink
            }
            Self::Exim(it, sink) => {
                until("an empty queue", || it.queue().is_empty().then_some(()));
                sink
            }
            Self::Scripted(it) => return it.shared.taken.lock().unwrap().clone(),
        };
        let mut taken = BTreeMap::new();
        for arrived in sink.arrived() {
            *taken.entry(arrived.to).or_default() += 1;
        }
        taken
    }

    /// How often it has said to the end of a message that it did not take it for now: each time it
    /// may be sent again.
    pub(crate) fn refused_ends(&self) -> BTreeMap<String, usize> {
        match self {
            Self::Postfix(..) | Self::Exim(..) => BTreeMap::new(),
            Self::Scripted(it) => it.shared.refused.lock().unwrap().clone(),
        }
    }
}

/// A server that takes, refuses or closes the connection, by a seed.
pub(crate) struct Scripted {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    random: Mutex<Random>,
    behaves: AtomicBool,
    taken: Mutex<BTreeMap<String, usize>>,
    refused: Mutex<BTreeMap<String, usize>>,
}

impl Scripted {
    fn start(seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (behaves, taken, refused) =
            (AtomicBool::new(false), Mutex::default(), Mutex::default());
        let random = Mutex::new(Random::new(seed ^ 0x7365_7276));
        let shared = Arc::new(Shared { random, behaves, taken, refused });
        let serving = Arc::clone(&shared);
        // It ends with the program.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&serving);
                // An error is the end of the connection.
                std::thread::spawn(move || shared.serve(&stream));
            }
        });
        Self { address, shared }
    }
}

impl Shared {
    /// The usual answer, or another one; an error closes the connection.
    fn answer(&self, usual: &'static str) -> io::Result<&'static str> {
        if self.behaves.load(Ordering::SeqCst) {
            return Ok(usual);
        }
        match self.random.lock().unwrap().below(80) {
            0 => Err(io::ErrorKind::ConnectionAborted.into()),
            1 => Ok("421 4.3.2 going down"),
            2 | 3 => Ok("451 4.3.0 later"),
            4 => Ok("554 5.7.1 never"),
            _ => Ok(usual),
        }
    }

    fn serve(&self, mut stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut lines = BufReader::new(stream.try_clone()?);
        let mut say = |text: &str| stream.write_all(format!("{text}\r\n").as_bytes());
        // Half of its connections know `BDAT`.
        let offers = match self.random.lock().unwrap().below(2) {
            0 => "250-mx.example\r\n250 CHUNKING",
            _ => "250 mx.example",
        };
        say(self.answer("220 mx.example ESMTP")?)?;
        let (mut to, mut line) = (String::new(), Vec::new());
        loop {
            line.clear();
            if lines.read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            let text = String::from_utf8_lossy(&line).into_owned();
            let mut words = text.split_whitespace();
            match words.next().unwrap_or_default() {
                "EHLO" => say(self.answer(offers)?)?,
                "RCPT" => {
                    to = text.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
                    say(self.answer("250 ok")?)?;
                }
                "DATA" => {
                    let answer = self.answer("354 go on")?;
                    say(answer)?;
                    if answer.starts_with('3') {
                        while line != b".\r\n" {
                            line.clear();
                            if lines.read_until(b'\n', &mut line)? == 0 {
                                return Ok(());
                            }
                        }
                        say(self.end(&to)?)?;
                    }
                }
                "BDAT" => {
                    let size = words.next().and_then(|it| it.parse().ok()).unwrap_or(0);
                    lines.read_exact(&mut vec![0; size])?;
                    let is_last = words.next().is_some();
                    say(if is_last { self.end(&to)? } else { self.answer("250 got it")? })?;
                }
                "QUIT" => return say("221 bye"),
                _ => say(self.answer("250 ok")?)?,
            }
        }
    }

    /// It has the message before it says so, and may not come to say it.
    fn end(&self, to: &str) -> io::Result<&'static str> {
        let answer = self.answer("250 2.0.0 Ok: queued as 4F8A31C2E7");
        let count = |all: &Mutex<BTreeMap<String, usize>>| {
            *all.lock().unwrap().entry(to.to_owned()).or_default() += 1;
        };
        match answer {
            Ok(text) if text.starts_with('4') => count(&self.refused),
            Ok(text) if text.starts_with('5') => {}
            Ok(_) | Err(_) => count(&self.taken),
        }
        answer
    }
}
