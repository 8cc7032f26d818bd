//! The folder where messages wait, one file each, and stay when their end is known.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use onlyonce_core::{Key, Timestamp};
use onlyonce_failpoint::failpoint;
use onlyonce_smtp::{Content, Mailbox};
use serde::{Deserialize, Serialize};

use crate::message::{Message, digest, hex};

/// Where a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shelf {
    /// It waits, is being sent, or nobody knows whether it was.
    Queue,
    /// The server has it.
    Sent,
    /// It was refused for good.
    Refused,
}

impl Shelf {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Queue, Self::Sent, Self::Refused];

    /// Its folder.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Sent => "sent",
            Self::Refused => "refused",
        }
    }
}

/// What came of adding a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is there from now on, also after a crash.
    New,
    /// It was there already: the same one.
    There,
    /// Another message has its key. Nothing was changed.
    Other,
}

/// Something in the folder cannot be read or written.
#[derive(Debug)]
pub struct SpoolError {
    path: PathBuf,
    error: io::Error,
}

/// The folder: `queue`, `sent`, `refused`, and `tmp` for what is being written.
#[derive(Clone, Debug)]
pub struct Spool {
    dir: PathBuf,
}

/// The first line of a file. The content follows.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    version: u32,
    key: String,
    from: Option<String>,
    to: String,
    taken: u64,
    /// If it was asked for before it was taken in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    posted: Option<u64>,
    print: String,
    /// Over all of it: a file that is not as it was written is not sent.
    check: String,
}

const VERSION: u32 = 1;
/// The file that says whose spool it is.
const OWNER: &str = "store";
/// The file that says by which ways messages went.
const WAYS: &str = "ways";

impl Spool {
    /// Opens the folder, or makes it.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(dir: &Path) -> Result<Self, SpoolError> {
        for name in Shelf::ALL.map(Shelf::name).into_iter().chain(["tmp"]) {
            let path = dir.join(name);
            fs::create_dir_all(&path).map_err(at(&path))?;
        }
        synced(dir).map_err(at(dir))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Whether this spool is that of the sender of this name. It is made so, durably, if it is
    /// nobody's yet: another one has no record of what was sent, and would send it again.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn belongs_to(&self, who: &str) -> Result<bool, SpoolError> {
        let path = self.dir.join(OWNER);
        match fs::read_to_string(&path) {
            Ok(owner) => return Ok(owner == who),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(at(&path)(error)),
        }
        match self.written(who)?.persist_noclobber(&path) {
            Ok(_) => {}
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(at(&path)(error.error)),
        }
        synced(&self.dir).map_err(at(&self.dir))?;
        // Whoever was faster has it.
        Ok(fs::read_to_string(&path).map_err(at(&path))? == who)
    }

    /// By which ways messages may have gone of which nobody knows, as was noted last; and that of
    /// the last sender. Empty if nothing was noted.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn ways(&self) -> Result<Vec<String>, SpoolError> {
        let path = self.dir.join(WAYS);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.lines().map(ToOwned::to_owned).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(at(&path)(error)),
        }
    }

    /// Notes them in place of what was noted, durably; each is one line.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn note_ways(&self, ways: &[String]) -> Result<(), SpoolError> {
        let path = self.dir.join(WAYS);
        let file = self.written(&ways.join("\n"))?;
        file.persist(&path).map_err(|error| at(&path)(error.error))?;
        synced(&self.dir).map_err(at(&self.dir))
    }

    /// A file that is on the disk, and has no name yet.
    fn written(&self, text: &str) -> Result<tempfile::NamedTempFile, SpoolError> {
        let tmp = self.dir.join("tmp");
        let mut file = tempfile::NamedTempFile::new_in(&tmp).map_err(at(&tmp))?;
        file.write_all(text.as_bytes()).map_err(at(file.path()))?;
        file.as_file().sync_all().map_err(at(file.path()))?;
        Ok(file)
    }

    /// Puts a message into the queue, unless its key is there already on any shelf.
    ///
    /// # Errors
    /// It could not be written. It may be there all the same, so adding it may be repeated.
    pub fn add(&self, message: &Message) -> Result<Added, SpoolError> {
        let name = message.name();
        if let Some(shelf) = self.shelf(&name) {
            return self.compare(shelf, &name, message);
        }
        let tmp = self.dir.join("tmp");
        let mut file = tempfile::NamedTempFile::new_in(&tmp).map_err(at(&tmp))?;
        failpoint!("spool.write.before", name);
        file.write_all(&encoded(message)).map_err(at(file.path()))?;
        failpoint!("spool.sync.before", name);
        file.as_file().sync_all().map_err(at(file.path()))?;
        failpoint!("spool.link.before", name);
        let path = self.path(Shelf::Queue, &name);
        // Fails if somebody was faster: nobody's message is written over.
        match file.persist_noclobber(&path) {
            Ok(_) => {}
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                return self.compare(Shelf::Queue, &name, message);
            }
            Err(error) => return Err(at(&path)(error.error)),
        }
        failpoint!("spool.link.after", name);
        self.sync(Shelf::Queue)?;
        failpoint!("spool.linked.after", name);
        Ok(Added::New)
    }

    /// The names of all messages on a shelf, in no order.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn names(&self, shelf: Shelf) -> Result<Vec<String>, SpoolError> {
        let path = self.dir.join(shelf.name());
        let named = |entry: io::Result<fs::DirEntry>| {
            entry.map(|it| it.file_name().to_string_lossy().into_owned())
        };
        let names: io::Result<_> = fs::read_dir(&path).and_then(|it| it.map(named).collect());
        names.map_err(at(&path))
    }

    /// Where a message is, if it is here.
    pub fn shelf(&self, name: &str) -> Option<Shelf> {
        // The queue first: from there it moves to the others, never back.
        Shelf::ALL.into_iter().find(|shelf| self.path(*shelf, name).exists())
    }

    /// Reads a message.
    ///
    /// # Errors
    /// It is not there, or not as it was written.
    pub fn read(&self, shelf: Shelf, name: &str) -> Result<Message, SpoolError> {
        let path = self.path(shelf, name);
        let bytes = fs::read(&path).map_err(at(&path))?;
        let read = decoded(&bytes).filter(|it| it.name() == name);
        read.ok_or_else(|| {
            at(&path)(io::Error::new(io::ErrorKind::InvalidData, "it is not as it was written"))
        })
    }

    /// Moves a message whose end is known out of the queue. Repeating it changes nothing.
    ///
    /// # Errors
    /// It could not be moved. It then waits on, and its record says that it has ended.
    pub fn end(&self, name: &str, shelf: Shelf) -> Result<(), SpoolError> {
        let (from, to) = (self.path(Shelf::Queue, name), self.path(shelf, name));
        failpoint!("spool.move.before", name);
        match fs::rename(&from, &to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&from)(error)),
            Ok(()) | Err(_) => {}
        }
        failpoint!("spool.move.after", name);
        self.sync(shelf)?;
        self.sync(Shelf::Queue)?;
        failpoint!("spool.moved.after", name);
        Ok(())
    }

    fn compare(&self, shelf: Shelf, name: &str, new: &Message) -> Result<Added, SpoolError> {
        let old = self.read(shelf, name)?;
        let same = old.fingerprint() == new.fingerprint();
        Ok(if same { Added::There } else { Added::Other })
    }

    fn path(&self, shelf: Shelf, name: &str) -> PathBuf {
        self.dir.join(shelf.name()).join(name)
    }

    fn sync(&self, shelf: Shelf) -> Result<(), SpoolError> {
        let path = self.dir.join(shelf.name());
        synced(&path).map_err(at(&path))
    }
}

impl SpoolError {
    /// Whether this one file is at fault: it is not as it was written.
    pub fn is_of_the_file(&self) -> bool {
        self.error.kind() == io::ErrorKind::InvalidData
    }
}

fn synced(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn at(path: &Path) -> impl Fn(io::Error) -> SpoolError {
    let path = path.to_owned();
    move |error| SpoolError { path: path.clone(), error }
}

fn encoded(message: &Message) -> Vec<u8> {
    let line = Line {
        version: VERSION,
        key: message.key.as_str().to_owned(),
        from: message.from.as_ref().map(|it| it.as_str().to_owned()),
        to: message.to.as_str().to_owned(),
        taken: message.taken.as_millis(),
        posted: earlier(message),
        print: hex(&message.print),
        check: check(message),
    };
    // A struct of texts and numbers can always be written.
    let mut bytes = serde_json::to_vec(&line).unwrap_or_default();
    bytes.push(b'\n');
    bytes.extend_from_slice(message.content.as_bytes());
    bytes
}

fn decoded(bytes: &[u8]) -> Option<Message> {
    let end = bytes.iter().position(|it| *it == b'\n')?;
    let line: Line = serde_json::from_slice(&bytes[..end]).ok()?;
    if line.version != VERSION {
        return None;
    }
    let mailbox = |text: &str| Mailbox::new(text).ok();
    let from = match &line.from {
        Some(text) => Some(mailbox(text)?),
        None => None,
    };
    let [taken, posted] = [line.taken, line.posted.unwrap_or(line.taken)];
    let [taken, posted] = [taken, posted].map(Timestamp::from_millis);
    let message = Message {
        key: Key::new(line.key.into_bytes()).ok()?,
        from,
        to: mailbox(&line.to)?,
        taken,
        posted,
        print: unhex(&line.print)?,
        content: Content::new(&bytes[end + 1..]).ok()?,
    };
    let is_whole = message.content.as_bytes() == &bytes[end + 1..];
    (is_whole && check(&message) == line.check).then_some(message)
}

fn check(message: &Message) -> String {
    let Message { key, from, to, taken, posted: _, print, content } = message;
    let from = from.as_ref().map_or("", Mailbox::as_str).as_bytes();
    let taken = taken.as_millis().to_be_bytes();
    let to = to.as_str().as_bytes();
    let posted = earlier(message).map(u64::to_be_bytes);
    let mut parts = vec![key.as_bytes(), from, to, &taken, print, content.as_bytes()];
    parts.extend(posted.as_ref().map(<[u8; 8]>::as_slice));
    hex(&digest(&parts))
}

/// When it was asked for, in milliseconds since 1970, if that was before it was taken in.
fn earlier(message: &Message) -> Option<u64> {
    let Message { taken, posted, .. } = message;
    (posted != taken).then(|| posted.as_millis())
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

impl fmt::Display for SpoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.error)
    }
}

impl std::error::Error for SpoolError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::frozen;

    const TEXT: &[u8] = b"From: shop@shop.example\n\nHello\n";

    fn message(text: &[u8]) -> Message {
        let to = Mailbox::new("ann@mail.example").unwrap();
        let taken = Timestamp::from_millis(1_764_000_000_000);
        frozen("order-7", None, &[to], text, taken).unwrap().remove(0)
    }

    #[test]
    fn a_key_is_added_once_wherever_its_message_is() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path()).unwrap();
        let (message, other) = (message(TEXT), message(b"From: shop@shop.example\n\nBye\n"));
        assert_eq!(spool.add(&message).unwrap(), Added::New);
        for shelf in [Shelf::Queue, Shelf::Sent] {
            if shelf == Shelf::Sent {
                spool.end(&message.name(), shelf).unwrap();
                spool.end(&message.name(), shelf).unwrap();
            }
            assert_eq!(spool.add(&message).unwrap(), Added::There);
            assert_eq!(spool.add(&other).unwrap(), Added::Other);
            assert_eq!(spool.read(shelf, &message.name()).unwrap(), message);
            assert_eq!(spool.names(shelf).unwrap(), [message.name()]);
        }
        assert_eq!(spool.names(Shelf::Queue).unwrap().len(), 0);
    }

    #[test]
    fn a_spool_is_of_one_sender() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path()).unwrap();
        for _ in 0..2 {
            assert!(spool.belongs_to("first").unwrap());
            assert!(!spool.belongs_to("other").unwrap());
            assert!(Spool::open(dir.path()).unwrap().belongs_to("first").unwrap());
        }
    }

    #[test]
    fn the_ways_that_were_noted_last_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path()).unwrap();
        assert_eq!(spool.ways().unwrap(), [""; 0]);
        for ways in [vec!["a:25", "b:25"], vec!["c:25"]] {
            spool.note_ways(&ways.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
            assert_eq!(Spool::open(dir.path()).unwrap().ways().unwrap(), ways);
        }
    }

    #[test]
    fn a_file_that_is_not_as_it_was_written_is_not_sent() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path()).unwrap();
        let message = message(TEXT).known_since(Timestamp::from_millis(1_764_000_000_007));
        spool.add(&message).unwrap();
        let path = spool.path(Shelf::Queue, &message.name());
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            assert!(spool.read(Shelf::Queue, &message.name()).is_err(), "byte {at}");
            fs::write(&path, &whole[..at]).unwrap();
            assert!(spool.read(Shelf::Queue, &message.name()).is_err(), "cut at {at}");
        }
        fs::write(&path, &whole).unwrap();
        assert_eq!(spool.read(Shelf::Queue, &message.name()).unwrap(), message);
    }
}
