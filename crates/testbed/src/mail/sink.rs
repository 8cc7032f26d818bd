//! A mail server that takes everything: where the mail servers of a test deliver to, and where it
//! is counted what has arrived in the end.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::port::Port;

/// Counts the messages that arrive; its threads end with the test's process.
#[derive(Debug)]
pub struct MailSink {
    port: Port,
    arrived: Arc<Mutex<Vec<Arrived>>>,
}

/// A message that has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Whom it is for, as its envelope says.
    pub to: String,
    /// What stands in its Message-ID, with the brackets.
    pub id: String,
    /// Its bytes, as they came: a line that begins with a dot has one more.
    pub content: Vec<u8>,
}

impl MailSink {
    /// One where nothing has arrived.
    pub fn open() -> Self {
        let (port, arrived) = (Port::free(), Arc::default());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).unwrap();
        let counting: Arc<Mutex<Vec<Arrived>>> = Arc::clone(&arrived);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let arrived = Arc::clone(&counting);
                // An error is the end of the connection.
                thread::spawn(move || serve(&stream, &arrived));
            }
        });
        Self { port, arrived }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// What has arrived so far.
    pub fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().unwrap().clone()
    }
}

fn serve(mut stream: &TcpStream, arrived: &Mutex<Vec<Arrived>>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut lines = BufReader::new(stream.try_clone()?);
    stream.write_all(b"220 sink.example ESMTP\r\n")?;
    let mut to: Vec<String> = Vec::new();
    let mut line = Vec::new();
    while 0 < lines.read_until(b'\n', &mut line)? {
        let text = String::from_utf8_lossy(&line).into_owned();
        line.clear();
        let verb = text.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        let answer: &[u8] = match verb.as_str() {
            "MAIL" => {
                to.clear();
                b"250 ok\r\n"
            }
            "RCPT" => {
                to.push(text.split(['<', '>']).nth(1).unwrap_or_default().to_owned());
                b"250 ok\r\n"
            }
            "DATA" => {
                stream.write_all(b"354 go on\r\n")?;
                let (id, content) = taken(&mut lines)?;
                let mut arrived = arrived.lock().unwrap();
                let of = |to| Arrived { to, id: id.clone(), content: content.clone() };
                arrived.extend(to.drain(..).map(of));
                b"250 2.0.0 ok\r\n"
            }
            "QUIT" => {
                stream.write_all(b"221 bye\r\n")?;
                return Ok(());
            }
            _ => b"250 sink.example\r\n",
        };
        stream.write_all(answer)?;
    }
    Ok(())
}

/// Reads a content to its end: what stands in its Message-ID, and all of it.
fn taken(lines: &mut BufReader<TcpStream>) -> io::Result<(String, Vec<u8>)> {
    let (mut id, mut line, mut content) = (String::new(), Vec::new(), Vec::new());
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line == b".\r\n" {
            return Ok((id, content));
        }
        content.extend_from_slice(&line);
        let text = String::from_utf8_lossy(&line);
        if let Some((name, value)) = text.split_once(':')
            && id.is_empty()
            && name.eq_ignore_ascii_case("message-id")
        {
            id = value.trim().to_owned();
        }
    }
}
