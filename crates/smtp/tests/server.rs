//! A mail server that follows a script, and what the client makes of it.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onlyonce_smtp::{
    Committed, Content, Envelope, Failed, Login, Mailbox, Mechanism, Notify, Password, Relay,
    Security, Session, Stage, Waits,
};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::{TcpListener, TcpStream};

/// What the server does at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Says(&'static str),
    Closes,
    /// Never answers.
    Hangs,
}

/// The moments of a session at which something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Greeting,
    Ehlo,
    Auth,
    Mail,
    Rcpt,
    Data,
    Chunk,
    End,
}

#[derive(Clone)]
struct Script {
    offers: &'static [&'static str],
    unlike: Option<(At, Does)>,
}

/// What the server has seen.
#[derive(Default)]
struct Seen {
    lines: Vec<String>,
    /// Messages whose end it has seen, as it would keep them.
    ended: Vec<Vec<u8>>,
}

struct Server {
    addr: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl Server {
    async fn start(offers: &'static [&'static str], unlike: Option<(At, Does)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, seen) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Seen::default())));
        let (script, notes) = (Script { offers, unlike }, Arc::clone(&seen));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, script.clone(), Arc::clone(&notes)));
            }
        });
        Self { addr, seen }
    }

    fn relay(&self) -> Relay {
        Relay {
            host: "127.0.0.1".to_owned(),
            port: self.addr.port(),
            security: Security::None,
            login: None,
            hello: "shop.example".to_owned(),
            waits: Waits::default(),
        }
    }

    fn ended(&self) -> Vec<Vec<u8>> {
        self.seen.lock().unwrap().ended.clone()
    }

    fn line(&self, begin: &str) -> Option<String> {
        self.seen.lock().unwrap().lines.iter().find(|it| it.starts_with(begin)).cloned()
    }
}

type Stream = BufStream<TcpStream>;

/// `false` if the session is over.
async fn act(stream: &mut Stream, script: &Script, at: At, usual: &str) -> bool {
    let does = script.unlike.filter(|(it, _)| *it == at).map(|(_, does)| does);
    let said = match does {
        None => usual,
        Some(Does::Says(said)) => said,
        Some(Does::Closes) => return false,
        Some(Does::Hangs) => return std::future::pending().await,
    };
    stream.write_all(format!("{said}\r\n").as_bytes()).await.unwrap();
    stream.flush().await.is_ok() && (does.is_none() || said.starts_with(['2', '3']))
}

async fn serve(stream: TcpStream, script: Script, seen: Arc<Mutex<Seen>>) {
    let mut stream = BufStream::new(stream);
    if !act(&mut stream, &script, At::Greeting, "220 mx.example ESMTP").await {
        return;
    }
    let mut message = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        seen.lock().unwrap().lines.push(line.clone());
        let verb = line.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        let goes_on = match verb.as_str() {
            "EHLO" => {
                let mut lines = vec!["250-mx.example".to_owned()];
                lines.extend(script.offers.iter().map(|it| format!("250-{it}")));
                lines.push("250 HELP".to_owned());
                act(&mut stream, &script, At::Ehlo, &lines.join("\r\n")).await
            }
            "AUTH" if line.starts_with("AUTH LOGIN") => logs_in(&mut stream, &script, &seen).await,
            "AUTH" => {
                act(&mut stream, &script, At::Auth, "235 2.7.0 welcome").await
                    && (!refuses_token(&script) || refused(&mut stream, &seen).await)
            }
            "MAIL" => {
                message.clear();
                act(&mut stream, &script, At::Mail, "250 2.1.0 ok").await
            }
            "RCPT" => act(&mut stream, &script, At::Rcpt, "250 2.1.5 ok").await,
            "DATA" => {
                act(&mut stream, &script, At::Data, "354 go on").await
                    && dotted(&mut stream, &mut message).await
                    && end(&mut stream, &script, &seen, &message).await
            }
            "BDAT" => {
                let mut words = line.split_whitespace().skip(1);
                let size: usize = words.next().unwrap().parse().unwrap();
                let mut chunk = vec![0; size];
                if stream.read_exact(&mut chunk).await.is_err() {
                    return;
                }
                message.extend(chunk);
                if words.next() == Some("LAST") {
                    end(&mut stream, &script, &seen, &message).await
                } else {
                    act(&mut stream, &script, At::Chunk, "250 2.0.0 got it").await
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

/// Asks for name and password one by one.
async fn logs_in(stream: &mut Stream, script: &Script, seen: &Mutex<Seen>) -> bool {
    for asks in ["334 VXNlcm5hbWU6\r\n", "334 UGFzc3dvcmQ6\r\n"] {
        stream.write_all(asks.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        seen.lock().unwrap().lines.push(line);
    }
    act(stream, script, At::Auth, "235 2.7.0 welcome").await
}

/// Whether it says what it has against a token, and waits for an empty line.
fn refuses_token(script: &Script) -> bool {
    matches!(script.unlike, Some((At::Auth, Does::Says(said))) if said.starts_with('3'))
}

async fn refused(stream: &mut Stream, seen: &Mutex<Seen>) -> bool {
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    seen.lock().unwrap().lines.push(line);
    stream.write_all(b"535 5.7.8 the token is over\r\n").await.unwrap();
    stream.flush().await.unwrap();
    false
}

/// Reads up to the dot; `false` if the connection ends before it.
async fn dotted(stream: &mut Stream, message: &mut Vec<u8>) -> bool {
    loop {
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line).await.unwrap_or(0) == 0 || !line.ends_with(b"\r\n") {
            return false;
        }
        if line == b".\r\n" {
            return true;
        }
        message.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}

async fn end(stream: &mut Stream, script: &Script, seen: &Mutex<Seen>, message: &[u8]) -> bool {
    seen.lock().unwrap().ended.push(message.to_vec());
    act(stream, script, At::End, "250 2.0.0 Ok: queued as 4F8A31C2E7").await
}

const TEXT: &[u8] = b"Subject: Welcome\n\n.hidden\nHello\n";
const CHUNKING: &[&str] = &["CHUNKING", "SIZE 1000", "8BITMIME"];

fn envelope() -> Envelope {
    Envelope {
        from: Some(Mailbox::new("shop@shop.example").unwrap()),
        to: Mailbox::new("ann@mail.example").unwrap(),
        id: Some("welcome-7".to_owned()),
        notify: Notify::Failure,
    }
}

/// For a server that does so: who hangs is not waited for.
fn patience(does: Does) -> Waits {
    let short = Duration::from_millis(200);
    if does == Does::Hangs {
        Waits { answer: short, end: short, ..Waits::default() }
    } else {
        Waits::default()
    }
}

async fn sent(relay: &Relay) -> Result<Committed, Failed> {
    let session = Session::connect(relay).await?;
    let staged = session.stage(&envelope(), &Content::new(TEXT).unwrap()).await?;
    Ok(staged.commit().await)
}

#[tokio::test]
async fn a_message_arrives_byte_for_byte_with_a_dot_and_in_chunks() {
    for offers in [&[] as &[_], CHUNKING] {
        let server = Server::start(offers, None).await;
        let Ok(Committed::Accepted { answer, session, .. }) = sent(&server.relay()).await else {
            panic!("not accepted")
        };
        assert_eq!(answer.queue_id(), Some("4F8A31C2E7"));
        assert_eq!(server.ended(), [b"Subject: Welcome\r\n\r\n.hidden\r\nHello\r\n"]);
        // The same connection takes the next one.
        let again = session.stage(&envelope(), &Content::new(TEXT).unwrap()).await.unwrap();
        assert!(matches!(again.commit().await, Committed::Accepted { .. }));
        assert_eq!(server.ended().len(), 2);
    }
}

/// Case B126. Before its end the server has no message, whatever goes wrong: nothing is in doubt.
#[tokio::test]
async fn whatever_fails_before_the_end_the_message_was_not_taken() {
    use At::{Chunk, Data, Ehlo, Greeting, Mail, Rcpt};
    let refusals =
        [("421 busy", true), ("450 later", true), ("552 full", false), ("554 no", false)];
    let stages = [
        (Greeting, Stage::Connecting),
        (Ehlo, Stage::Connecting),
        (Mail, Stage::Sender),
        (Rcpt, Stage::Recipient),
        (Data, Stage::Content),
        (Chunk, Stage::Content),
    ];
    for (at, stage) in stages {
        let offers = if at == Chunk { CHUNKING } else { &[] };
        // A refusal before there is a sender is not about the message.
        let mut ways: Vec<(Does, bool)> = refusals
            .iter()
            .map(|(said, again)| (Does::Says(said), *again || stage == Stage::Connecting))
            .collect();
        let odd = [Does::Closes, Does::Hangs, Does::Says("!garbage"), Does::Says("199 odd")];
        ways.extend(odd.map(|does| (does, true)));
        for (does, retryable) in ways {
            let server = Server::start(offers, Some((at, does))).await;
            let relay = Relay { waits: patience(does), ..server.relay() };
            let failed = sent(&relay).await.expect_err("not sent");
            assert_eq!((failed.stage, failed.retryable), (stage, retryable), "{at:?} {does:?}");
            assert_eq!(server.ended().len(), 0, "{at:?} {does:?}");
        }
    }
}

/// Case B123. Case B126. From the end to the answer nobody can tell, and only an answer settles it.
#[tokio::test]
async fn after_the_end_only_an_answer_tells() {
    for offers in [&[] as &[_], CHUNKING] {
        for does in [Does::Closes, Does::Hangs, Does::Says("!garbage"), Does::Says("354 go on")] {
            let server = Server::start(offers, Some((At::End, does))).await;
            let relay = Relay { waits: patience(does), ..server.relay() };
            let committed = sent(&relay).await.unwrap();
            assert!(matches!(committed, Committed::Unknown { .. }), "{does:?}: {committed:?}");
        }
        for (said, again) in [("451 4.3.0 later", true), ("554 5.7.1 spam", false)] {
            let server = Server::start(offers, Some((At::End, Does::Says(said)))).await;
            let committed = sent(&server.relay()).await.unwrap();
            let Committed::Refused(failed) = committed else { panic!("{committed:?}") };
            assert_eq!((failed.stage, failed.retryable), (Stage::End, again), "{said}");
        }
    }
}

/// An answer too many shifts all that follow: that to the chunk would count as that to the end.
#[tokio::test]
async fn a_server_that_says_one_answer_too_many_is_not_believed() {
    use At::{Chunk, Data, Ehlo, Mail, Rcpt};
    let twice = Does::Says("250 2.0.0 ok\r\n250 2.0.0 ok");
    let hello = Does::Says("250-mx.example\r\n250 CHUNKING\r\n250 2.0.0 ok");
    let asks = Does::Says("354 go on\r\n250 2.0.0 ok");
    for (at, does, stage) in [
        (Ehlo, hello, Stage::Sender),
        (Mail, twice, Stage::Recipient),
        (Rcpt, twice, Stage::Content),
        (Data, asks, Stage::Content),
        (Chunk, twice, Stage::End),
    ] {
        let offers = if at == Data { &[] } else { CHUNKING };
        let server = Server::start(offers, Some((at, does))).await;
        let failed = match sent(&server.relay()).await {
            Err(failed) | Ok(Committed::Refused(failed)) => failed,
            Ok(committed) => panic!("{at:?}: {committed:?}"),
        };
        assert_eq!((failed.stage, failed.retryable), (stage, true), "{at:?}: {failed}");
        assert_eq!(server.ended().len(), 0, "{at:?}: the end was not said");
    }
    // Also before the login, whose answers it would shift.
    let hello = Does::Says("250-mx.example\r\n250-AUTH PLAIN\r\n250 CHUNKING\r\n250 2.0.0 ok");
    let server = Server::start(CHUNKING, Some((Ehlo, hello))).await;
    let secret = Password::new("pw");
    let login = Some(Login { user: "ann".to_owned(), secret, mechanism: None });
    let failed = sent(&Relay { login, ..server.relay() }).await.unwrap_err();
    assert_eq!((failed.stage, failed.retryable), (Stage::LoggingIn, true), "{failed}");
    assert_eq!(server.line("AUTH"), None);
    // Of two answers to the end nobody knows which one counts.
    for offers in [&[] as &[_], CHUNKING] {
        for said in ["250 2.0.0 ok\r\n554 5.7.1 spam", "554 5.7.1 spam\r\n250 2.0.0 ok"] {
            let server = Server::start(offers, Some((At::End, Does::Says(said)))).await;
            let committed = sent(&server.relay()).await.unwrap();
            assert!(matches!(committed, Committed::Unknown { .. }), "{said}: {committed:?}");
        }
    }
}

/// A login may end, or may have been forgotten: the message can be sent once that is mended.
#[tokio::test]
async fn that_we_are_not_logged_in_is_nothing_against_the_message() {
    for (at, stage) in [(At::Mail, Stage::Sender), (At::Rcpt, Stage::Recipient)] {
        for (says, retryable) in [
            ("530 5.7.0 authentication required", true),
            ("535 5.7.8 token expired", true),
            ("550 5.1.1 nobody", false),
        ] {
            let server = Server::start(CHUNKING, Some((at, Does::Says(says)))).await;
            let failed = sent(&server.relay()).await.unwrap_err();
            assert_eq!((failed.stage, failed.retryable), (stage, retryable), "{failed}");
        }
    }
}

/// A server may say at any time that it closes.
#[tokio::test]
async fn a_connection_on_which_more_was_said_takes_no_other_message() {
    let closes = Does::Says("250 2.0.0 ok\r\n421 4.3.2 closing");
    let server = Server::start(CHUNKING, Some((At::End, closes))).await;
    let Ok(Committed::Accepted { session, .. }) = sent(&server.relay()).await else {
        panic!("not accepted")
    };
    let failed = session.stage(&envelope(), &Content::new(TEXT).unwrap()).await.unwrap_err();
    assert_eq!((failed.stage, failed.retryable), (Stage::Sender, true));
    assert_eq!(server.ended().len(), 1);
}

#[tokio::test]
async fn a_message_that_is_staged_and_dropped_was_never_sent() {
    for offers in [&[] as &[_], CHUNKING] {
        let server = Server::start(offers, None).await;
        let session = Session::connect(&server.relay()).await.unwrap();
        let content = Content::new(TEXT).unwrap();
        drop(session.stage(&envelope(), &content).await.unwrap());
        assert!(matches!(sent(&server.relay()).await.unwrap(), Committed::Accepted { .. }));
        assert_eq!(server.ended().len(), 1);
    }
}

#[tokio::test]
async fn what_the_server_offers_decides_what_is_said() {
    let plain = Server::start(&[], None).await;
    sent(&plain.relay()).await.unwrap();
    assert_eq!(plain.line("MAIL").unwrap(), "MAIL FROM:<shop@shop.example>\r\n");
    assert_eq!(plain.line("RCPT").unwrap(), "RCPT TO:<ann@mail.example>\r\n");

    let rich = Server::start(&["SIZE", "DSN", "CHECKPOINT", "8BITMIME"], None).await;
    let session = Session::connect(&rich.relay()).await.unwrap();
    let envelope = Envelope { notify: Notify::Always, ..envelope() };
    let content = Content::new("Subject: Ä\n\nx\n".as_bytes()).unwrap();
    session.stage(&envelope, &content).await.unwrap().commit().await;
    let mail = "MAIL FROM:<shop@shop.example> SIZE=18 BODY=8BITMIME ENVID=welcome-7\r\n";
    assert_eq!(rich.line("MAIL").unwrap(), mail);
    let recipient = "RCPT TO:<ann@mail.example> NOTIFY=SUCCESS,FAILURE,DELAY\r\n";
    assert_eq!(rich.line("RCPT").unwrap(), recipient);
}

#[tokio::test]
async fn what_the_server_cannot_take_is_not_sent() {
    let server = Server::start(&["SIZE 10"], None).await;
    let failed = sent(&server.relay()).await.unwrap_err();
    assert_eq!((failed.stage, failed.retryable), (Stage::Sender, false));
    let session = Session::connect(&Server::start(&[], None).await.relay()).await.unwrap();
    let content = Content::new("Subject: Ä\n".as_bytes()).unwrap();
    let failed = session.stage(&envelope(), &content).await.unwrap_err();
    assert_eq!((failed.stage, failed.retryable), (Stage::Sender, false));
}

#[tokio::test]
async fn a_login_is_said_as_the_server_offers_it() {
    let login =
        |mechanism| Some(Login { user: "ann".to_owned(), secret: Password::new("pw"), mechanism });
    let server = Server::start(&["AUTH PLAIN XOAUTH2"], None).await;
    let relay = Relay { login: login(None), ..server.relay() };
    assert!(matches!(sent(&relay).await.unwrap(), Committed::Accepted { .. }));
    assert_eq!(server.line("AUTH").unwrap(), "AUTH PLAIN AGFubgBwdw==\r\n");

    let relay = Relay { login: login(Some(Mechanism::Login)), ..server.relay() };
    assert_eq!(sent(&relay).await.unwrap_err().stage, Stage::LoggingIn);

    let refused = Server::start(&["AUTH PLAIN"], Some((At::Auth, Does::Says("535 no")))).await;
    let relay = Relay { login: login(None), ..refused.relay() };
    let failed = sent(&relay).await.unwrap_err();
    // A wrong password is mended by a person, and then the message can go.
    assert_eq!((failed.stage, failed.retryable), (Stage::LoggingIn, true));
    assert!(!failed.to_string().contains("pw"), "{failed}");
}

#[tokio::test]
async fn a_login_in_the_older_form_is_said_line_by_line() {
    for mechanism in [None, Some(Mechanism::Login)] {
        let server = Server::start(&["AUTH LOGIN"], None).await;
        let secret = Password::new("pw");
        let login = Some(Login { user: "ann".to_owned(), secret, mechanism });
        let relay = Relay { login, ..server.relay() };
        assert!(matches!(sent(&relay).await.unwrap(), Committed::Accepted { .. }));
        let lines = server.seen.lock().unwrap().lines[1..4].to_vec();
        assert_eq!(lines, ["AUTH LOGIN\r\n", "YW5u\r\n", "cHc=\r\n"]);
    }
}

/// A token is asked for at each login, since it does not last as long as a sender.
#[tokio::test]
async fn a_token_is_said_as_it_is_by_then() {
    let tokens = Mutex::new(vec![Err("no token".to_owned()), Ok("t2".into()), Ok("t1".into())]);
    let secret = Password::asked(move || tokens.lock().unwrap().pop().unwrap());
    let mechanism = Some(Mechanism::Xoauth2);
    let login = Some(Login { user: "ann".to_owned(), secret, mechanism });
    for line in [
        "AUTH XOAUTH2 dXNlcj1hbm4BYXV0aD1CZWFyZXIgdDEBAQ==\r\n",
        "AUTH XOAUTH2 dXNlcj1hbm4BYXV0aD1CZWFyZXIgdDIBAQ==\r\n",
    ] {
        let server = Server::start(&["AUTH PLAIN XOAUTH2"], None).await;
        let relay = Relay { login: login.clone(), ..server.relay() };
        assert!(matches!(sent(&relay).await.unwrap(), Committed::Accepted { .. }));
        assert_eq!(server.line("AUTH").unwrap(), line);
    }
    let server = Server::start(&["AUTH XOAUTH2"], None).await;
    let failed = sent(&Relay { login, ..server.relay() }).await.unwrap_err();
    assert_eq!((failed.stage, failed.retryable), (Stage::LoggingIn, true));
    assert!(failed.to_string().contains("no token"), "{failed}");
    assert_eq!(server.line("AUTH"), None);
}

#[tokio::test]
async fn a_token_that_is_refused_is_none_of_the_message_and_the_server_says_why() {
    let asks = Does::Says("334 eyJzdGF0dXMiOiI0MDEifQ==");
    let server = Server::start(&["AUTH XOAUTH2"], Some((At::Auth, asks))).await;
    let (secret, mechanism) = (Password::new("t1"), Some(Mechanism::Xoauth2));
    let login = Some(Login { user: "ann".to_owned(), secret, mechanism });
    let failed = sent(&Relay { login, ..server.relay() }).await.unwrap_err();
    assert_eq!((failed.stage, failed.retryable), (Stage::LoggingIn, true));
    assert!(failed.to_string().contains("the token is over"), "{failed}");
}
