//! Making a session: the connection, TLS, EHLO, the login.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use smtp_proto::{AUTH_LOGIN, AUTH_PLAIN, AUTH_XOAUTH2, EXT_START_TLS, EhloResponse};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::answer::Verdict;
use crate::failed::{Failed, Stage};
use crate::relay::{Login, Mechanism, Relay, Security};
use crate::session::Session;
use crate::wire::{Broken, Io, Wire};

impl Session {
    /// Connects to `relay`, begins TLS and logs in as it says.
    ///
    /// # Errors
    /// The server cannot be used now. No message was sent.
    pub async fn connect(relay: &Relay) -> Result<Self, Failed> {
        let stream = connected(relay).await?;
        let waits = relay.waits;
        let (mut wire, offers) = match &relay.security {
            Security::None => {
                let mut wire = Wire::new(stream);
                greeted(&mut wire, waits.answer).await?;
                let offers = hello(&mut wire, relay).await?;
                (wire.boxed(), offers)
            }
            Security::Tls(config) => {
                let mut wire = Wire::new(secured(relay, config, stream).await?);
                greeted(&mut wire, waits.answer).await?;
                let offers = hello(&mut wire, relay).await?;
                (wire.boxed(), offers)
            }
            Security::StartTls(config) => {
                let mut wire =
                    Wire::new(secured(relay, config, opened(relay, stream).await?).await?);
                // What was offered before TLS may have been said by anybody.
                let offers = hello(&mut wire, relay).await?;
                (wire.boxed(), offers)
            }
        };
        if let Some(login) = &relay.login {
            log_in(&mut wire, &offers, login, waits.answer).await?;
        }
        Ok(Self::new(wire, offers, waits, relay.host.clone()))
    }
}

fn broken(stage: Stage) -> impl Fn(Broken) -> Failed {
    move |broken| Failed::passing(stage, broken)
}

async fn connected(relay: &Relay) -> Result<TcpStream, Failed> {
    let stage = Stage::Connecting;
    let limit = relay.waits.connect;
    let connecting = timeout(limit, TcpStream::connect((relay.host.as_str(), relay.port))).await;
    let stream = connecting
        .map_err(|_| Failed::passing(stage, format_args!("no connection within {limit:?}")))?
        .map_err(|error| Failed::passing(stage, error))?;
    let late = u32::try_from(relay.waits.late.as_millis()).unwrap_or(u32::MAX);
    // Bounds how late a last byte can arrive, also once this process is gone.
    rustix::net::sockopt::set_tcp_user_timeout(&stream, late)
        .map_err(|error| Failed::passing(stage, error))?;
    stream.set_nodelay(true).map_err(|error| Failed::passing(stage, error))?;
    Ok(stream)
}

async fn greeted<S: Io>(wire: &mut Wire<S>, limit: Duration) -> Result<(), Failed> {
    let greeting = wire.answer(limit).await.map_err(broken(Stage::Connecting))?;
    match greeting.verdict() {
        Verdict::Yes => Ok(()),
        Verdict::GoOn | Verdict::Later | Verdict::Never => {
            // A 554 in the greeting is about this server or about us, and not about the message.
            Err(Failed { retryable: true, ..Failed::answered(Stage::Connecting, greeting) })
        }
    }
}

/// Says what comes after an answer, if there was no other one behind it: else each that follows
/// would be taken for the one before it.
async fn say<S: Io>(
    wire: &mut Wire<S>,
    stage: Stage,
    bytes: &[u8],
    limit: Duration,
) -> Result<(), Failed> {
    wire.quiet().await.map_err(broken(stage))?;
    wire.write(bytes, limit).await.map_err(broken(stage))
}

async fn hello<S: Io>(wire: &mut Wire<S>, relay: &Relay) -> Result<EhloResponse<String>, Failed> {
    let stage = Stage::Connecting;
    if relay.hello.is_empty() || !relay.hello.bytes().all(|it| it.is_ascii_graphic()) {
        let text = format!("{:?} is no name that a host can say in EHLO", relay.hello);
        return Err(Failed::lasting(stage, text));
    }
    let limit = relay.waits.answer;
    let command = format!("EHLO {}\r\n", relay.hello);
    say(wire, stage, command.as_bytes(), limit).await?;
    let offers = wire.offers(limit).await.map_err(broken(stage))?;
    offers.map_err(|code| Failed::passing(stage, format_args!("EHLO was answered with {code}")))
}

/// Greeted, and told that TLS is next.
async fn opened(relay: &Relay, stream: TcpStream) -> Result<TcpStream, Failed> {
    let (stage, limit) = (Stage::Securing, relay.waits.answer);
    let mut wire = Wire::new(stream);
    greeted(&mut wire, limit).await?;
    let offers = hello(&mut wire, relay).await?;
    if offers.capabilities & EXT_START_TLS == 0 {
        let text = "the server offers no STARTTLS, or somebody on the way has taken it out";
        return Err(Failed::passing(stage, text));
    }
    say(&mut wire, stage, b"STARTTLS\r\n", limit).await?;
    let answer = wire.answer(limit).await.map_err(broken(stage))?;
    match answer.verdict() {
        Verdict::Yes => {}
        Verdict::GoOn | Verdict::Later | Verdict::Never => {
            return Err(Failed { retryable: true, ..Failed::answered(stage, answer) });
        }
    }
    let early = "bytes came between the answer to STARTTLS and TLS: somebody is on the way";
    wire.into_stream().ok_or_else(|| Failed::passing(stage, early))
}

async fn secured(
    relay: &Relay,
    config: &Arc<ClientConfig>,
    stream: TcpStream,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Failed> {
    let stage = Stage::Securing;
    let host = relay.host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|error| Failed::lasting(stage, error))?;
    let limit = relay.waits.connect;
    let shaking = timeout(limit, TlsConnector::from(Arc::clone(config)).connect(name, stream));
    let shaken = shaking.await;
    shaken
        .map_err(|_| Failed::passing(stage, format_args!("no TLS within {limit:?}")))?
        .map_err(|error| Failed::passing(stage, error))
}

fn mechanism(login: &Login, offered: u64) -> Option<Mechanism> {
    let wanted = [
        (Mechanism::Plain, AUTH_PLAIN),
        (Mechanism::Login, AUTH_LOGIN),
        (Mechanism::Xoauth2, AUTH_XOAUTH2),
    ];
    let usable = |(named, flag): &(Mechanism, u64)| {
        let chosen = match login.mechanism {
            Some(mechanism) => mechanism == *named,
            // A password is no token.
            None => *named != Mechanism::Xoauth2,
        };
        chosen && offered & flag != 0
    };
    wanted.into_iter().find(usable).map(|(named, _)| named)
}

async fn log_in<S: Io>(
    wire: &mut Wire<S>,
    offers: &EhloResponse<String>,
    login: &Login,
    limit: Duration,
) -> Result<(), Failed> {
    let stage = Stage::LoggingIn;
    let Some(mechanism) = mechanism(login, offers.auth_mechanisms) else {
        return Err(Failed::passing(stage, "the server offers no way to log in that we may use"));
    };
    let (user, secret) = (&login.user, login.secret.get());
    let secret = secret.map_err(|text| Failed::passing(stage, text))?;
    let lines = match mechanism {
        Mechanism::Plain => {
            vec![format!("AUTH PLAIN {}", STANDARD.encode(format!("\0{user}\0{secret}")))]
        }
        Mechanism::Login => {
            vec!["AUTH LOGIN".to_owned(), STANDARD.encode(user), STANDARD.encode(secret)]
        }
        Mechanism::Xoauth2 => {
            let text = format!("user={user}\x01auth=Bearer {secret}\x01\x01");
            vec![format!("AUTH XOAUTH2 {}", STANDARD.encode(text))]
        }
    };
    let last = lines.len() - 1;
    for (at, line) in lines.iter().enumerate() {
        let line = format!("{line}\r\n");
        say(wire, stage, line.as_bytes(), limit).await?;
        let answer = wire.answer(limit).await.map_err(broken(stage))?;
        match (answer.verdict(), at == last) {
            (Verdict::Yes, true) => return Ok(()),
            (Verdict::GoOn, false) => {}
            (Verdict::GoOn, true) if mechanism == Mechanism::Xoauth2 => {
                // What it has against the token, for programs; for an empty line it says it in
                // words.
                say(wire, stage, b"\r\n", limit).await?;
                let answer = wire.answer(limit).await.map_err(broken(stage))?;
                return Err(Failed { retryable: true, ..Failed::answered(stage, answer) });
            }
            // It is about the login, which can be mended, and not about the message.
            (Verdict::Yes | Verdict::GoOn | Verdict::Later | Verdict::Never, _) => {
                return Err(Failed { retryable: true, ..Failed::answered(stage, answer) });
            }
        }
    }
    Ok(())
}
