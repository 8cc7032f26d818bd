//! A message on its way: all before its end, then its end.

use std::fmt;
use std::time::Duration;

use smtp_proto::{EXT_8BIT_MIME, EXT_CHUNKING, EXT_DSN, EXT_SIZE, EXT_SMTP_UTF8, EhloResponse};
use tokio::time::Instant;

use crate::address::Mailbox;
use crate::answer::{Answer, Verdict};
use crate::content::Content;
use crate::failed::{Failed, Stage};
use crate::relay::Waits;
use crate::wire::{Broken, Io, Wire};

/// Longest envelope id in bytes: a server may refuse a longer one (RFC 3461, section 4.4).
const ID_MAX: usize = 100;
/// How an answer begins that says that the server closes the connection.
const CLOSING: &[u8] = b"421";

/// Who a message is from and for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Where refusals by later servers go; `None`: nowhere, as for such refusals themselves.
    pub from: Option<Mailbox>,
    /// The one recipient.
    pub to: Mailbox,
    /// Names this message for this recipient, the same however often it is sent: letters, digits
    /// and `-._@` only, at most 100 of them. Said as ENVID (RFC 3461) to servers that know it.
    /// TRANSID (RFC 1845), by which a server would know a copy, is not said: none in use that we
    /// know of offers it, and what others do with it only they could show.
    pub id: Option<String>,
    /// When the recipient's server is to report, if ours knows how (RFC 3461).
    pub notify: Notify,
}

/// When a delivery is reported to the sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Notify {
    /// As servers do by themselves: when it fails.
    #[default]
    Failure,
    /// Also when it succeeds.
    Always,
    /// Never.
    Never,
}

/// A connection to a server on which a message can be sent.
pub struct Session {
    wire: Wire<Box<dyn Io>>,
    offers: EhloResponse<String>,
    waits: Waits,
    host: String,
}

/// A message of which the server has everything but the end. Dropped, it was never sent.
pub struct Staged {
    session: Session,
    end: End,
}

#[derive(Clone, Copy)]
enum End {
    Dot,
    LastChunk,
}

/// What came of the end.
pub enum Committed {
    /// The server has the message and answers for it. The session can send another one.
    Accepted {
        /// What it said.
        answer: Answer,
        /// For the next message.
        session: Box<Session>,
        /// How long it took from the end to its answer: for so long nobody knew. Of the same
        /// process; in microseconds and up.
        window: Duration,
    },
    /// The server has refused it, or the end was not said to it: it was certainly not taken.
    Refused(Failed),
    /// Nobody can tell. The connection is gone, so that no answer can be taken for another's.
    Unknown {
        /// What happened, for a person.
        text: String,
    },
}

impl Session {
    pub(crate) const fn new(
        wire: Wire<Box<dyn Io>>,
        offers: EhloResponse<String>,
        waits: Waits,
        host: String,
    ) -> Self {
        Self { wire, offers, waits, host }
    }

    /// The server's name for itself.
    pub fn server(&self) -> &str {
        &self.offers.hostname
    }

    /// The name we know it by.
    pub fn host(&self) -> &str {
        &self.host
    }

    const fn offers(&self, extension: u32) -> bool {
        self.offers.capabilities & extension != 0
    }

    /// Hands over the envelope and the content, all but the end. Can be repeated at will.
    ///
    /// # Errors
    /// The message was certainly not taken. The connection is given up.
    pub async fn stage(mut self, envelope: &Envelope, content: &Content) -> Result<Staged, Failed> {
        let sender = self.sender(envelope, content)?;
        self.asked(Stage::Sender, &sender).await?;
        let recipient = self.recipient(envelope);
        self.asked(Stage::Recipient, &recipient).await?;
        let end = if self.offers(EXT_CHUNKING) {
            // The server confirms that it has all of it, and still it is nothing without the end
            // (RFC 3030).
            let command = format!("BDAT {}\r\n", content.as_bytes().len());
            self.say(Stage::Content, command.as_bytes()).await?;
            self.write(Stage::Content, content.as_bytes()).await?;
            self.answered(Stage::Content, Verdict::Yes).await?;
            End::LastChunk
        } else {
            self.say(Stage::Content, b"DATA\r\n").await?;
            self.answered(Stage::Content, Verdict::GoOn).await?;
            self.say(Stage::Content, &content.stuffed()).await?;
            End::Dot
        };
        Ok(Staged { session: self, end })
    }

    /// Says goodbye, if the server is still there.
    pub async fn quit(mut self) {
        // Nothing depends on it.
        if self.wire.write(b"QUIT\r\n", self.waits.connect).await.is_ok() {
            let _ = self.wire.answer(self.waits.connect).await;
        }
    }

    fn sender(&self, envelope: &Envelope, content: &Content) -> Result<String, Failed> {
        let from = envelope.from.as_ref();
        let mut command = format!("MAIL FROM:<{}>", from.map_or("", Mailbox::as_str));
        let size = content.as_bytes().len();
        if self.offers(EXT_SIZE) {
            if 0 < self.offers.size && self.offers.size < size {
                let most = self.offers.size;
                let text = format!("the message has {size} bytes and the server takes {most}");
                return Err(Failed::lasting(Stage::Sender, text));
            }
            command.push_str(&format!(" SIZE={size}"));
        }
        if !content.is_ascii() {
            if !self.offers(EXT_8BIT_MIME) {
                let text = "the message is not all ASCII, and the server takes nothing else";
                return Err(Failed::lasting(Stage::Sender, text));
            }
            command.push_str(" BODY=8BITMIME");
        }
        if from.is_some_and(Mailbox::is_international) || envelope.to.is_international() {
            if !self.offers(EXT_SMTP_UTF8) {
                let text = "an address is not all ASCII, and the server takes nothing else";
                return Err(Failed::lasting(Stage::Sender, text));
            }
            command.push_str(" SMTPUTF8");
        }
        if let Some(id) = &envelope.id {
            let plain = |it: u8| it.is_ascii_alphanumeric() || b"-._@".contains(&it);
            if id.is_empty() || ID_MAX < id.len() || !id.bytes().all(plain) {
                let text = format!("{id:?} cannot be said as the id of an envelope");
                return Err(Failed::lasting(Stage::Sender, text));
            }
            if self.offers(EXT_DSN) {
                command.push_str(&format!(" ENVID={id}"));
            }
        }
        command.push_str("\r\n");
        Ok(command)
    }

    fn recipient(&self, envelope: &Envelope) -> String {
        let notify = match envelope.notify {
            _ if !self.offers(EXT_DSN) => "",
            Notify::Failure => "",
            Notify::Always => " NOTIFY=SUCCESS,FAILURE,DELAY",
            Notify::Never => " NOTIFY=NEVER",
        };
        format!("RCPT TO:<{}>{notify}\r\n", envelope.to)
    }

    async fn asked(&mut self, stage: Stage, command: &str) -> Result<(), Failed> {
        self.say(stage, command.as_bytes()).await?;
        self.answered(stage, Verdict::Yes).await
    }

    /// Says what comes after an answer, if there was no other one behind it.
    async fn say(&mut self, stage: Stage, bytes: &[u8]) -> Result<(), Failed> {
        self.wire.quiet().await.map_err(|broken| Failed::passing(stage, broken))?;
        self.write(stage, bytes).await
    }

    async fn write(&mut self, stage: Stage, bytes: &[u8]) -> Result<(), Failed> {
        let written = self.wire.write(bytes, self.waits.content).await;
        written.map_err(|broken| Failed::passing(stage, broken))
    }

    async fn answered(&mut self, stage: Stage, wanted: Verdict) -> Result<(), Failed> {
        let answer = self.wire.answer(self.waits.answer).await;
        let answer = answer.map_err(|broken| Failed::passing(stage, broken))?;
        if answer.verdict() == wanted { Ok(()) } else { Err(Failed::answered(stage, answer)) }
    }
}

impl Staged {
    /// Says the end and reads the answer. Before this is called, the caller has made durable that
    /// the message may be taken; once it was called, only its answer tells.
    pub async fn commit(mut self) -> Committed {
        let (wire, waits) = (&mut self.session.wire, self.session.waits);
        let end: &[u8] = match self.end {
            // The line before it has ended.
            End::Dot => b".\r\n",
            End::LastChunk => b"BDAT 0 LAST\r\n",
        };
        // Else what stands there would be taken for the answer to the end. Nothing was said yet.
        if let Err(broken) = wire.quiet().await {
            return Committed::Refused(Failed::passing(Stage::End, broken));
        }
        let begun = Instant::now();
        let ended = match wire.write(end, waits.content).await {
            Ok(()) => wire.answer(waits.end).await,
            Err(broken) => Err(broken),
        };
        match ended {
            // Which of two is the answer? A server may say at any time that it closes (RFC 5321,
            // section 3.8).
            Ok(_) if !wire.rest().is_empty() && !wire.rest().starts_with(CLOSING) => {
                let text = String::from_utf8_lossy(wire.rest()).trim_end().to_owned();
                unknown(&Broken::Unasked(text))
            }
            Ok(answer) => match answer.verdict() {
                Verdict::Yes => {
                    let (session, window) = (Box::new(self.session), begun.elapsed());
                    Committed::Accepted { answer, session, window }
                }
                Verdict::Later | Verdict::Never => {
                    Committed::Refused(Failed::answered(Stage::End, answer))
                }
                Verdict::GoOn => unknown(&Broken::Garbled(answer.to_string())),
            },
            Err(broken) => unknown(&broken),
        }
    }

    /// The server's name for itself.
    pub fn server(&self) -> &str {
        self.session.server()
    }
}

fn unknown(broken: &Broken) -> Committed {
    Committed::Unknown { text: broken.to_string() }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({})", self.host)
    }
}

impl fmt::Debug for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Staged({})", self.session.host)
    }
}

impl fmt::Debug for Committed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted { answer, .. } => write!(f, "Accepted({answer})"),
            Self::Refused(failed) => write!(f, "Refused({failed})"),
            Self::Unknown { text } => write!(f, "Unknown({text})"),
        }
    }
}
