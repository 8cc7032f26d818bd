//! The mail servers do what tests rely on.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};

use onlyonce_testbed::{Arrived, Cut, Exim, Fate, MailRelay, MailSink, Postfix, Word, until};

/// Hands a message over; the last answer, or nothing if none came.
fn hand_over(server: SocketAddr, to: &str) -> Option<String> {
    let mut stream = TcpStream::connect(server).unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut answer = || {
        let whole = |line: &String| line.as_bytes().get(3) != Some(&b'-');
        answers.by_ref().map_while(Result::ok).find(whole)
    };
    answer()?;
    let recipient = format!("RCPT TO:<{to}>");
    let content = format!("Message-ID: <{to}>\r\nFrom: shop@shop.example\r\n\r\nHello\r\n.");
    for said in ["EHLO localhost", "MAIL FROM:<shop@shop.example>", &recipient, "DATA"] {
        stream.write_all(format!("{said}\r\n").as_bytes()).ok()?;
        answer()?;
    }
    stream.write_all(format!("{content}\r\n").as_bytes()).ok()?;
    answer()
}

/// Whether this alone has arrived, whatever lines the servers in between have put before it.
fn has_arrived(sink: &MailSink, to: &str) -> Option<()> {
    let arrived = sink.arrived();
    let [Arrived { to: for_whom, id, content }] = &arrived[..] else { return None };
    let is_whole = content.ends_with(b"\r\n\r\nHello\r\n");
    (for_whom == to && *id == format!("<{to}>") && is_whole).then_some(())
}

#[test]
fn postfix_delivers_to_a_sink_and_logs_it() {
    let sink = MailSink::open();
    let postfix = Postfix::start(Some(sink.address()));
    let answer = hand_over(postfix.address(), "ann@mail.example").unwrap();
    assert!(answer.starts_with("250 2.0.0 Ok: queued as "), "{answer}");
    until("a delivery", || has_arrived(&sink, "ann@mail.example"));
    until("a line of the log", || {
        let log = std::fs::read_to_string(postfix.log()).unwrap_or_default();
        log.contains("to=<ann@mail.example>").then_some(())
    });
    until("an empty queue", || postfix.queue().is_empty().then_some(()));
}

#[test]
fn postfix_without_a_sink_keeps_its_queue_also_over_a_kill() {
    let mut postfix = Postfix::start(None);
    hand_over(postfix.address(), "ann@mail.example").unwrap();
    postfix.restart();
    let [queued] = &postfix.queue()[..] else { panic!("{:?}", postfix.queue()) };
    assert!(queued.contains("ann@mail.example"), "{queued}");
}

#[test]
fn exim_delivers_to_a_sink_and_logs_it() {
    let sink = MailSink::open();
    let exim = Exim::start(Some(sink.address()));
    let answer = hand_over(exim.address(), "ann@mail.example").unwrap();
    assert!(answer.starts_with("250 OK id="), "{answer}");
    until("a delivery", || has_arrived(&sink, "ann@mail.example"));
    until("a line of the log", || {
        let log = std::fs::read_to_string(exim.log()).unwrap_or_default();
        log.contains("=> ann@mail.example").then_some(())
    });
    until("an empty queue", || exim.queue().is_empty().then_some(()));
}

#[test]
fn exim_without_a_sink_keeps_its_queue_also_over_a_kill() {
    let mut exim = Exim::start(None);
    hand_over(exim.address(), "ann@mail.example").unwrap();
    exim.restart();
    assert!(exim.queue().contains("ann@mail.example"), "{}", exim.queue());
}

#[test]
fn a_relay_loses_a_word_or_its_answer_and_counts_the_ends() {
    let sink = MailSink::open();
    let relay = MailRelay::to(sink.address());
    for how in [Cut::Close, Cut::Reset] {
        for word in Word::ALL {
            for fate in [Fate::Lost(how), Fate::Unanswered(how)] {
                relay.decide(move |it, _| if it == word { fate } else { Fate::Passes });
                let to = format!("{word:?}-{fate:?}@mail.example").replace(['(', ')'], "-");
                assert_eq!(hand_over(relay.address(), &to), None, "{to}");
                // A text has the answer of its end.
                let arrives = Word::Text <= word && matches!(fate, Fate::Unanswered(_));
                assert_eq!(relay.ends(&to), usize::from(arrives || word == Word::End), "{to}");
                let has = |to: &str| sink.arrived().iter().any(|it| it.to == to);
                if arrives {
                    until("it", || has(&to).then_some(()));
                }
                assert_eq!(has(&to), arrives, "{to}");
            }
        }
    }
    relay.decide(|_, _| Fate::Passes);
    assert!(hand_over(relay.address(), "ann@mail.example").is_some());
}
