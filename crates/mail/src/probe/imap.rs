//! A mailbox that gets a copy of all that the server has taken, searched over IMAP (RFC 3501).
//!
//! All recipients of a key have the same Message-ID, so each copy carries a marker of its own too.
//! One without a marker may be anybody's, and says nothing; nor does one that came before the first
//! attempt, which is of another shop with the same keys. "No" needs a mailbox that begins before
//! the first attempt, has got something since, and a search that finds what is known to be there.
//! Some servers keep one message of each Message-ID: if there is a copy of somebody's, "no" needs
//! two, which show that this one does not.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use imap_proto::{AttributeValue, MailboxDatum, Response, ResponseCode, Status};
use onlyonce_core::Timestamp;
use onlyonce_smtp::Security;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::log::seconds;
use super::{Seen, Wanted, plain};

/// The field that tells the copies of a key's recipients from each other.
pub(crate) const MARKER: &str = "Onlyonce-Copy";
/// The longest answer, in bytes: the names and numbers of a few messages.
const ANSWER_MAX: usize = 4 << 20;
/// How many of the last messages are looked at for one that can be searched for.
const LAST: u32 = 8;
/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(20);
/// The ports of RFC 8314, section 3.2, and of RFC 3501.
const PORTS: (u16, u16) = (993, 143);

/// A mailbox of an IMAP server that gets a copy of each message.
pub struct Archive {
    host: String,
    port: u16,
    security: Security,
    user: String,
    password: String,
    mailbox: String,
}

impl Archive {
    /// What `imap://USER@HOST[:PORT]/MAILBOX` names; the port is 993 with TLS from the first byte,
    /// else 143. All of it is printable ASCII; MAILBOX is as the server writes it.
    ///
    /// # Errors
    /// It is not of that form; for a person.
    pub fn new(url: &str, password: String, security: Security) -> Result<Self, String> {
        let wrong = || "it must be imap://USER@HOST/MAILBOX".to_owned();
        let rest = url.strip_prefix("imap://").ok_or_else(wrong)?;
        let (who, mailbox) = rest.split_once('/').ok_or_else(wrong)?;
        let (user, host) = who.rsplit_once('@').ok_or_else(wrong)?;
        let usual = if matches!(security, Security::Tls(_)) { PORTS.0 } else { PORTS.1 };
        let (host, port) = match host.rsplit_once(':') {
            Some((host, port)) => {
                (host, port.parse().map_err(|_| "the port is no number up to 65535".to_owned())?)
            }
            None => (host, usual),
        };
        let is_plain =
            |it: &str| !it.is_empty() && it.bytes().all(|it| (b' '..=b'~').contains(&it));
        if host.is_empty() || ![user, mailbox, &password].into_iter().all(is_plain) {
            return Err("user, password and mailbox must be printable ASCII".to_owned());
        }
        let (host, user, mailbox) = (host.to_owned(), user.to_owned(), mailbox.to_owned());
        Ok(Self { host, port, security, user, password, mailbox })
    }

    /// Whether the server is on this host.
    pub fn is_here(&self) -> bool {
        let address = self.host.parse::<std::net::IpAddr>();
        self.host == "localhost" || address.is_ok_and(|it| it.is_loopback())
    }

    /// Logs in, opens the mailbox and says how many messages are in it, and which mailbox of this
    /// name it is.
    async fn open(&self) -> Result<(Session<Box<dyn Io>>, Opened), String> {
        let (host, port) = (self.host.as_str(), self.port);
        let connecting = tokio::time::timeout(CONNECT_MAX, TcpStream::connect((host, port)));
        let stream = connecting.await.map_err(|_| "no connection in time".to_owned())?;
        let stream = stream.map_err(|error| error.to_string())?;
        let mut session: Session<Box<dyn Io>> = match &self.security {
            Security::None => Session::greeted(Box::new(stream) as Box<dyn Io>).await?,
            Security::Tls(config) => {
                Session::greeted(Box::new(secured(config, host, stream).await?) as Box<dyn Io>)
                    .await?
            }
            Security::StartTls(config) => {
                let mut session = Session::greeted(stream).await?;
                session.ask("STARTTLS", |_| ()).await?;
                if !session.buffer.is_empty() {
                    return Err(
                        "bytes came between STARTTLS and TLS: somebody is on the way".into()
                    );
                }
                Session::new(Box::new(secured(config, host, session.stream).await?) as Box<dyn Io>)
            }
        };
        let login = format!("LOGIN {} {}", quoted(&self.user), quoted(&self.password));
        let told = session.ask(&login, |_| ()).await;
        told.map_err(|text| format!("{host} does not let {} in: {text}", self.user))?;
        let mut opened = Opened::default();
        let examine = format!("EXAMINE {}", quoted(&self.mailbox));
        let told = session.ask(&examine, |answer| {
            if let Response::MailboxData(MailboxDatum::Exists(count)) = answer {
                opened.exists = *count;
            }
            if let Response::Data { code: Some(ResponseCode::UidValidity(it)), .. } = answer {
                opened.validity = *it;
            }
        });
        told.await.map_err(|text| format!("{host} does not open {}: {text}", self.mailbox))?;
        Ok((session, opened))
    }
}

/// What the server says of a mailbox when it is opened.
#[derive(Clone, Copy, Default)]
struct Opened {
    exists: u32,
    validity: u32,
}

/// Whether the mailbox can be opened.
pub(super) async fn check(archive: &Archive) -> Result<(), String> {
    let (mut session, _) = archive.open().await?;
    session.ask("LOGOUT", |_| ()).await
}

/// Looks for a copy with this marker; and says whether "nothing" would be all of the truth since a
/// moment.
pub(super) async fn look(
    archive: &Archive,
    wanted: &Wanted<'_>,
    marker: &str,
    since: Option<Timestamp>,
) -> Result<(Seen, bool), String> {
    let (mut session, opened) = archive.open().await?;
    let tells_all = match since {
        Some(since) if 0 < opened.exists => covers(&mut session, opened.exists, since).await?,
        Some(_) | None => false,
    };
    let by_id = format!("HEADER Message-ID \"<{}>\"", wanted.id);
    // After all else: what is found now was not missed.
    let found = session.search(&by_id).await?;
    let copies = if found.is_empty() { Vec::new() } else { session.copies(&found).await? };
    let (ours, others): (Vec<_>, Vec<_>) = copies.iter().partition(|it| it.marker == marker);
    let others: HashSet<_> = others.into_iter().map(|it| &it.marker).collect();
    let seen = match came_since(&ours, since).await {
        Some(Copy { uid, .. }) => {
            Seen::There(format!("{} {}/{uid}", archive.mailbox, opened.validity))
        }
        // Those without a marker, or that were not shown, may be this one.
        None if !ours.is_empty() || copies.len() < found.len() => Seen::Unsure,
        None if others.len() == 1 => Seen::Unsure,
        None => Seen::Nothing,
    };
    // Whatever it says now, it has answered.
    let _ = session.ask("LOGOUT", |_| ()).await;
    Ok((seen, tells_all))
}

/// A message with the Message-ID that is looked for.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Copy {
    uid: u32,
    marker: String,
    /// When the server got it, in its words.
    came: String,
}

/// The first one that came since a moment. Dates have no fractions of seconds.
async fn came_since<'a>(copies: &[&'a Copy], since: Option<Timestamp>) -> Option<&'a Copy> {
    let at = since?.as_millis() / 1_000;
    for &copy in copies {
        if seconds(&copy.came).await.is_some_and(|came| at <= came) {
            return Some(copy);
        }
    }
    None
}

/// Whether the mailbox has what it got before and since a moment, and a search finds it.
async fn covers(
    session: &mut Session<Box<dyn Io>>,
    exists: u32,
    since: Timestamp,
) -> Result<bool, String> {
    let last = exists.saturating_sub(LAST - 1).max(1);
    let mut found: Vec<(u32, String, Option<String>)> = Vec::new();
    let fetch = format!("FETCH 1,{last}:{exists} (INTERNALDATE ENVELOPE)");
    session
        .ask(&fetch, |answer| {
            let Response::Fetch(number, values) = answer else { return };
            let (mut date, mut id) = (None, None);
            for value in values {
                if let AttributeValue::InternalDate(it) = value {
                    date = Some(it.trim().to_owned());
                }
                if let AttributeValue::Envelope(it) = value {
                    let text = it.message_id.as_deref().map(String::from_utf8_lossy);
                    id = text.map(|it| it.trim().to_owned());
                }
            }
            found.extend(date.map(|date| (*number, date, id)));
        })
        .await?;
    found.sort_unstable();
    let (Some((1, first, _)), Some((_, latest, _))) = (found.first(), found.last()) else {
        return Ok(false);
    };
    // Dates have no fractions of seconds: the same second may be later.
    let at = since.as_millis() / 1_000;
    let begins = seconds(first).await.is_some_and(|first| first < at);
    if !(begins && seconds(latest).await.is_some_and(|latest| at <= latest)) {
        return Ok(false);
    }
    let ids = found.iter().rev().filter_map(|(_, _, id)| id.as_deref());
    let Some(known) = ids.filter_map(plain).next() else { return Ok(false) };
    Ok(!session.search(&format!("HEADER Message-ID \"<{known}>\"")).await?.is_empty())
}

/// The value of the one field that there is. A message that came with one of its own has two, and
/// which of them is ours nobody says.
fn only_field(text: &str) -> Option<String> {
    let (_, value) = text.trim_end().split_once(':')?;
    let value = value.trim();
    (!value.is_empty() && !value.contains('\n')).then(|| value.to_owned())
}

/// The bytes of a connection.
trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Io for S {}

/// A connection to the server, with what it has said and was not read yet.
struct Session<S> {
    stream: S,
    buffer: Vec<u8>,
    commands: u32,
}

impl<S: Io> Session<S> {
    const fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new(), commands: 0 }
    }

    /// Once the server has said that it is there.
    async fn greeted(stream: S) -> Result<Self, String> {
        let mut session = Self::new(stream);
        let is_there = |it: &Response<'_>| matches!(it, Response::Data { status: Status::Ok, .. });
        if session.next(is_there).await? {
            Ok(session)
        } else {
            Err("the server does not greet us".to_owned())
        }
    }

    /// Says a command and hands over each answer, until it was done.
    async fn ask(
        &mut self,
        command: &str,
        mut each: impl FnMut(&Response<'_>) + Send,
    ) -> Result<(), String> {
        self.commands += 1;
        let name = format!("o{}", self.commands);
        let line = format!("{name} {command}\r\n");
        self.stream.write_all(line.as_bytes()).await.map_err(|error| error.to_string())?;
        self.stream.flush().await.map_err(|error| error.to_string())?;
        loop {
            let ended = self.next(|answer| {
                let Response::Done { tag, status, information, .. } = answer else {
                    each(answer);
                    return None;
                };
                let text = information.as_deref().unwrap_or_default();
                let is_done = tag.0 == name && *status == Status::Ok;
                Some(if is_done { Ok(()) } else { Err(format!("{status:?} {text}")) })
            });
            if let Some(ended) = ended.await? {
                return ended;
            }
        }
    }

    /// The numbers of the messages that a search finds. An answer that does not say so is none.
    async fn search(&mut self, what: &str) -> Result<Vec<u32>, String> {
        let mut found = None;
        self.ask(&format!("UID SEARCH {what}"), |answer| {
            if let Response::MailboxData(MailboxDatum::Search(numbers)) = answer {
                found.get_or_insert_with(Vec::new).extend_from_slice(numbers);
            }
        })
        .await?;
        found.ok_or_else(|| "the server does not say what it has found".to_owned())
    }

    /// Those of the messages with these numbers that have one marker, and a date.
    async fn copies(&mut self, found: &[u32]) -> Result<Vec<Copy>, String> {
        let numbers = found.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let what = format!("(UID INTERNALDATE BODY.PEEK[HEADER.FIELDS ({MARKER})])");
        let mut copies = Vec::new();
        self.ask(&format!("UID FETCH {numbers} {what}"), |answer| {
            let Response::Fetch(_, values) = answer else { return };
            let (mut number, mut marker, mut came) = (None, None, None);
            for value in values {
                if let AttributeValue::Uid(it) = value {
                    number = Some(*it);
                }
                if let AttributeValue::InternalDate(it) = value {
                    came = Some(it.trim().to_owned());
                }
                if let AttributeValue::BodySection { data: Some(data), .. } = value {
                    marker = only_field(&String::from_utf8_lossy(data));
                }
            }
            let number = number.filter(|it| found.contains(it));
            if let (Some(uid), Some(marker), Some(came)) = (number, marker, came) {
                copies.push(Copy { uid, marker, came });
            }
        })
        .await?;
        copies.sort_unstable();
        copies.dedup();
        Ok(copies)
    }

    /// The next answer, as `told` reads it.
    async fn next<T>(
        &mut self,
        mut told: impl FnMut(&Response<'_>) -> T + Send,
    ) -> Result<T, String> {
        loop {
            let read = match Response::from_bytes(&self.buffer) {
                Ok((rest, answer)) => Some((told(&answer), self.buffer.len() - rest.len())),
                Err(error) if error.is_incomplete() => None,
                Err(_) => return Err("the server says what is no answer".to_owned()),
            };
            if let Some((told, length)) = read {
                self.buffer.drain(..length);
                return Ok(told);
            }
            if ANSWER_MAX < self.buffer.len() {
                return Err("the server says too much".to_owned());
            }
            let more = self.stream.read_buf(&mut self.buffer).await;
            if more.map_err(|error| error.to_string())? == 0 {
                return Err("the server has closed the connection".to_owned());
            }
        }
    }
}

async fn secured(
    config: &Arc<ClientConfig>,
    host: &str,
    stream: TcpStream,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    let connecting = TlsConnector::from(Arc::clone(config)).connect(name, stream);
    connecting.await.map_err(|error| error.to_string())
}

/// As a quoted string (RFC 3501, section 4.3).
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

impl PartialEq for Archive {
    fn eq(&self, other: &Self) -> bool {
        let named = |it: &Self| (it.host.clone(), it.port, it.user.clone(), it.mailbox.clone());
        named(self) == named(other)
    }
}

impl Eq for Archive {}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, user, mailbox, .. } = self;
        write!(f, "Archive(imap://{user}@{host}:{port}/{mailbox})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_is_named_by_an_address_and_a_wrong_one_is_told() {
        let read = |url: &str| Archive::new(url, "secret".to_owned(), Security::None);
        let archive = read("imap://shop@shop.example@mail.example/Archive/2026").unwrap();
        let Archive { host, port, user, mailbox, .. } = &archive;
        let named = (&**host, *port, &**user, &**mailbox);
        assert_eq!(named, ("mail.example", 143, "shop@shop.example", "Archive/2026"));
        assert!(!format!("{archive:?}").contains("secret"));
        assert_eq!(read("imap://a@b:99/c").unwrap().port, 99);
        for wrong in [
            "imap://a@b",
            "imap://b/c",
            "http://a@b/c",
            "imap://a@b:x/c",
            "imap://@b/c",
            "imap://a@b/",
            "imap://a@/c",
            "imap://a@b/c\r\nx LOGOUT",
            "imap://ü@b/c",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn of_two_markers_none_is_taken() {
        assert_eq!(only_field("Onlyonce-Copy: <a@b>\r\n\r\n").as_deref(), Some("<a@b>"));
        let two = "Onlyonce-Copy: <a@b>\r\nOnlyonce-Copy: <c@d>\r\n\r\n";
        assert_eq!(only_field(two), None);
        assert_eq!(only_field("\r\n"), None);
    }

    #[test]
    fn nothing_in_a_name_ends_it() {
        assert_eq!(quoted("a\"b\\c"), "\"a\\\"b\\\\c\"");
    }
}
