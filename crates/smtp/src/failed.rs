//! Why a message was not taken, with certainty.

use std::fmt;

use crate::answer::{Answer, Verdict};

/// How far it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Finding and reaching the server, and its greeting.
    Connecting,
    /// TLS.
    Securing,
    /// Saying who we are.
    LoggingIn,
    /// Naming the sender.
    Sender,
    /// Naming the recipient.
    Recipient,
    /// Handing over the content.
    Content,
    /// The end of the content: the server has answered that it does not take the message, or it was
    /// not said.
    End,
}

impl Stage {
    /// In a few words, to follow "while".
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Securing => "beginning TLS",
            Self::LoggingIn => "logging in",
            Self::Sender => "naming the sender",
            Self::Recipient => "naming the recipient",
            Self::Content => "handing over the content",
            Self::End => "ending the content",
        }
    }
}

/// Not logged in, or not any more, or not safely enough (RFC 4954, section 6): that can be mended,
/// and is not about the message, to whatever command it is said.
const ABOUT_THE_LOGIN: [u16; 4] = [530, 534, 535, 538];

/// The message was certainly not taken, and no longer can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// How far it got.
    pub stage: Stage,
    /// Whether to send again later. If not, the same message will be refused again.
    pub retryable: bool,
    /// What the server said, if it was the server.
    pub answer: Option<Answer>,
    /// What happened, for a person.
    pub text: String,
}

impl Failed {
    /// Something on the way; another time it may work.
    pub(crate) fn passing(stage: Stage, text: impl fmt::Display) -> Self {
        Self { stage, retryable: true, answer: None, text: text.to_string() }
    }

    /// It can't work as it is.
    pub(crate) fn lasting(stage: Stage, text: impl fmt::Display) -> Self {
        Self { stage, retryable: false, answer: None, text: text.to_string() }
    }

    /// The server has said so.
    pub(crate) fn answered(stage: Stage, answer: Answer) -> Self {
        let retryable = match answer.verdict() {
            Verdict::Never => ABOUT_THE_LOGIN.contains(&answer.code),
            // A yes that is none here: the two have lost step.
            Verdict::Yes | Verdict::GoOn | Verdict::Later => true,
        };
        let text = format!("the server answered {answer}");
        Self { stage, retryable, answer: Some(answer), text }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not sent, while {}: {}", self.stage.name(), self.text)
    }
}

impl std::error::Error for Failed {}
