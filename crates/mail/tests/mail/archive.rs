//! Outcomes that nobody knows, and a mailbox that gets copies: its server is one of ours that
//! misbehaves on purpose.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use onlyonce_mail::{Archive, Asking, Became, Rules, Whom};
use onlyonce_smtp::Security;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::{TcpListener, TcpStream};

use crate::server::{At, Does};
use crate::{ANN, Shop, unlike};

const BOB: &str = "bob@mail.example";
const HOUR: i64 = 3_600;

/// What the server does with a search.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Answers {
    #[default]
    Rightly,
    /// It finds nothing, whatever is there.
    Nothing,
    /// It says that it was done, and not what was found.
    NothingSaid,
    No,
    Bad,
    AnotherDone,
    Closes,
    ClosesInTheMidst,
    Nonsense,
}

/// What it says first, and to a login.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum LetsIn {
    #[default]
    Us,
    Nobody,
    NotWithThisPassword,
    /// There is no such mailbox.
    Nowhere,
}

#[derive(Default)]
struct Shared {
    /// When each message came, in seconds since 1970, and what it is.
    mailbox: Mutex<Vec<(i64, String)>>,
    answers: Mutex<Answers>,
    lets_in: Mutex<LetsIn>,
}

struct Fake {
    address: String,
    shared: Arc<Shared>,
}

#[allow(clippy::disallowed_methods, reason = "a test's clock")]
fn now() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64
}

/// Another message, which came so many seconds from now.
fn other(from_now: i64, number: u32) -> (i64, String) {
    let text = format!("Message-ID: <{number}@other.example>\r\n\r\nx\r\n");
    (now() + from_now, text)
}

/// As IMAP writes a date.
fn date(seconds: i64) -> String {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds as u64);
    let text = httpdate::fmt_http_date(at);
    let words: Vec<_> = text.split(' ').collect();
    let [_, day, month, year, time, _] = words[..] else { panic!("{text}") };
    format!("{day}-{month}-{year} {time} +0000")
}

fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let lines = text.split("\r\n").take_while(|line| !line.is_empty());
    let mut found = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    found.next().unwrap_or_default()
}

impl Fake {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared::default());
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let shared = Arc::clone(&serving);
                // A client that is gone is no news.
                tokio::spawn(async move { shared.serve(BufStream::new(stream)).await });
            }
        });
        Self { address, shared }
    }

    fn has(&self, mails: &[(i64, String)]) {
        *self.shared.mailbox.lock().unwrap() = mails.to_vec();
    }

    fn rules(&self) -> Rules {
        let url = format!("imap://shop@{}/Sent \"all\"", self.address);
        let archive = Archive::new(&url, "se\\cret".to_owned(), Security::None).unwrap();
        let whom = Whom::Archive(Arc::new(archive));
        let asking = Asking { whom, settle: Duration::ZERO, late: Duration::ZERO };
        Rules { asking: Some(asking), ..Rules::default() }
    }

    /// A shop that asks it, and does not know of its messages to these whether they were taken.
    async fn in_doubt(&self, to: &[&str]) -> Shop {
        let shop = Shop { rules: self.rules(), ..Shop::open(false).await };
        shop.add("welcome", to);
        shop.server.manner(unlike(At::End, Does::Closes));
        let became = shop.run().await;
        assert!(became.values().all(|it| matches!(it, Became::Unknown(_))), "{became:?}");
        shop.server.manner(|_, _| Does::Usual);
        shop
    }
}

impl Shared {
    async fn serve(&self, mut stream: BufStream<TcpStream>) -> std::io::Result<()> {
        let lets_in = *self.lets_in.lock().unwrap();
        let greeting =
            if lets_in == LetsIn::Nobody { "* BYE go away\r\n" } else { "* OK ready\r\n" };
        stream.write_all(greeting.as_bytes()).await?;
        loop {
            stream.flush().await?;
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let (tag, command) = line.trim_end().split_once(' ').unwrap();
            let (says, ends) = self.answer(command, lets_in);
            stream.write_all(says.as_bytes()).await?;
            match ends {
                Some(ends) => stream.write_all(format!("{tag} {ends}\r\n").as_bytes()).await?,
                None => return stream.flush().await,
            }
        }
    }

    /// What it says to a command; `None` closes the connection.
    fn answer(&self, command: &str, lets_in: LetsIn) -> (String, Option<&'static str>) {
        let mailbox = self.mailbox.lock().unwrap().clone();
        let done = Some("OK done");
        if command.starts_with("LOGIN ") {
            let is_us = command == r#"LOGIN "shop" "se\\cret""#;
            let lets_in = is_us && lets_in != LetsIn::NotWithThisPassword;
            return (String::new(), if lets_in { done } else { Some("NO who is it") });
        }
        if command.starts_with("EXAMINE ") {
            let is_there = command == r#"EXAMINE "Sent \"all\"""# && lets_in != LetsIn::Nowhere;
            let says = format!("* {} EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n", mailbox.len());
            return if is_there { (says, done) } else { (String::new(), Some("NO such mailbox")) };
        }
        if let Some(rest) = command.strip_prefix("FETCH ") {
            let (set, _) = rest.split_once(' ').unwrap();
            let (first, last) = set.split_once(',').unwrap();
            let (from, to) = last.split_once(':').unwrap();
            let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
            assert_eq!(first, "1");
            let one = |number: usize| {
                let (at, text) = &mailbox[number - 1];
                let (date, id) = (date(*at), field(text, "Message-ID"));
                format!(
                    "* {number} FETCH (INTERNALDATE \"{date}\" ENVELOPE (NIL \"x\" NIL NIL NIL \
                     NIL NIL NIL NIL \"{id}\"))\r\n"
                )
            };
            let numbers = std::iter::once(1).chain(from.max(2)..=to);
            return (numbers.map(one).collect(), done);
        }
        if let Some(rest) = command.strip_prefix("UID FETCH ") {
            let what = "(UID INTERNALDATE BODY.PEEK[HEADER.FIELDS (Onlyonce-Copy)])";
            assert!(rest.ends_with(what), "{rest}");
            let (numbers, _) = rest.split_once(' ').unwrap();
            let one = |number: &str| {
                let at = number.parse::<usize>().unwrap() - 101;
                let (came, text) = &mailbox[at];
                let (came, marker) = (date(*came), field(text, "Onlyonce-Copy"));
                let line = if marker.is_empty() { "" } else { "Onlyonce-Copy: " };
                let ends = if marker.is_empty() { "" } else { "\r\n" };
                let text = format!("{line}{marker}{ends}\r\n");
                let length = text.len();
                let name = "BODY[HEADER.FIELDS (ONLYONCE-COPY)]";
                format!(
                    "* {} FETCH (UID {number} INTERNALDATE \"{came}\" {name} {{{length}}}\r\n\
                     {text})\r\n",
                    at + 1
                )
            };
            return (numbers.split(',').map(one).collect(), done);
        }
        if let Some(what) = command.strip_prefix("UID SEARCH ") {
            return self.searched(what, &mailbox);
        }
        (String::new(), done)
    }

    fn searched(&self, what: &str, mails: &[(i64, String)]) -> (String, Option<&'static str>) {
        let words: Vec<_> = what.split(' ').collect();
        let fits = |text: &str| {
            words.chunks(3).all(|it| {
                let [_, name, value] = it else { panic!("{what}") };
                field(text, name).contains(value.trim_matches('"'))
            })
        };
        let found = (101..).zip(mails).filter(|(_, (_, text))| fits(text));
        let found: String = found.map(|(number, _)| format!(" {number}")).collect();
        let (found, done) = (format!("* SEARCH{found}\r\n"), Some("OK done"));
        let answers = *self.answers.lock().unwrap();
        // What is known to be there is found, but where nothing is.
        if answers != Answers::Nothing && what.contains("other.example") {
            return (found, done);
        }
        match answers {
            Answers::Rightly => (found, done),
            Answers::Nothing => ("* SEARCH\r\n".to_owned(), done),
            Answers::NothingSaid => (String::new(), done),
            Answers::No => ("* SEARCH\r\n".to_owned(), Some("NO not now")),
            Answers::Bad => ("* SEARCH\r\n".to_owned(), Some("BAD what")),
            Answers::AnotherDone => ("* SEARCH\r\nother OK done\r\n".to_owned(), None),
            Answers::Closes => (String::new(), None),
            Answers::ClosesInTheMidst => ("* SEARCH\r\n".to_owned(), None),
            Answers::Nonsense => ("SEARCH?\r\n".to_owned(), done),
        }
    }
}

/// As the archive gets what the server has taken.
fn copy(shop: &Shop, to: &str) -> (i64, String) {
    (now(), String::from_utf8(shop.server.ended(to).remove(0)).unwrap())
}

/// As a server keeps it that takes fields out which it does not know.
fn without_marker(text: &str) -> String {
    let lines: Vec<_> = text.split("\r\n").filter(|it| !it.starts_with("Onlyonce-")).collect();
    lines.join("\r\n")
}

/// Both have the same Message-ID; each copy has a marker of its own.
#[tokio::test]
async fn a_copy_in_the_archive_is_its_recipients_and_nobody_elses() {
    let fake = Fake::start().await;
    let shop = fake.in_doubt(&[ANN, BOB]).await;
    let (at, text) = copy(&shop, ANN);
    fake.has(&[other(-HOUR, 1), copy(&shop, ANN), (at, without_marker(&text)), other(3, 2)]);
    let became = shop.run().await;
    let Became::Sent(receipt) = &became[ANN] else { panic!("{became:?}") };
    assert!(receipt.contains(r#"7/102"#) && receipt.contains("found_by"), "{receipt}");
    // Long enough that a "no" would be believed.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    for _ in 0..3 {
        assert!(matches!(&shop.run().await[BOB], Became::Unknown(_)), "one may be Bob's");
    }
    assert_eq!(shop.server.all_ended(), 2, "nothing was sent again");
    fake.has(&[other(-HOUR, 1), copy(&shop, ANN), copy(&shop, BOB)]);
    let became = shop.run().await;
    let Became::Sent(receipt) = &became[BOB] else { panic!("{became:?}") };
    assert!(receipt.contains("7/103") && shop.server.all_ended() == 2, "{receipt}");
}

/// Two copies show that this mailbox keeps more than one message of a Message-ID; one does not.
#[tokio::test]
async fn an_archive_says_no_beside_copies_of_two_other_recipients_and_not_beside_one() {
    const CARL: &str = "carl@mail.example";
    let fake = Fake::start().await;
    let shop = fake.in_doubt(&[ANN, BOB, CARL]).await;
    // Long enough that a "no" would be believed.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let (old, new, ann) = (other(-HOUR, 1), other(3, 2), copy(&shop, ANN));
    fake.has(&[old.clone(), ann.clone(), ann.clone(), new.clone()]);
    for _ in 0..3 {
        assert!(matches!(&shop.run().await[BOB], Became::Unknown(_)), "it was not kept, perhaps");
    }
    // Beside those of two others, one that does not say whose it is may be Bob's.
    let unmarked = (now(), without_marker(&ann.1));
    let all = [old, ann, copy(&shop, CARL), new];
    fake.has(&[&all[..3], &[unmarked], &all[3..]].concat());
    for _ in 0..3 {
        assert!(matches!(&shop.run().await[BOB], Became::Unknown(_)), "one may be Bob's");
    }
    assert_eq!(shop.server.ended(BOB).len(), 1);
    fake.has(&all);
    while !matches!(shop.run().await.get(BOB), Some(Became::Sent(_))) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((shop.server.ended(ANN).len(), shop.server.ended(BOB).len()), (1, 2));
}

/// It is of another shop with the same keys, or of this one before its store was lost.
#[tokio::test]
async fn a_copy_that_is_older_than_the_first_attempt_is_none_of_it() {
    let fake = Fake::start().await;
    let shop = fake.in_doubt(&[ANN]).await;
    let (_, text) = copy(&shop, ANN);
    // Long enough that a "no" would be believed.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    fake.has(&[other(-HOUR, 1), (now() - 60, text.clone()), other(3, 2)]);
    for _ in 0..3 {
        assert!(matches!(&shop.run().await[ANN], Became::Unknown(_)));
    }
    fake.has(&[other(-HOUR, 1), (now() - 60, text), copy(&shop, ANN), other(3, 2)]);
    let became = shop.run().await;
    let Became::Sent(receipt) = &became[ANN] else { panic!("{became:?}") };
    assert!(receipt.contains("7/103") && shop.server.all_ended() == 1, "{receipt}");
}

#[tokio::test]
async fn an_archive_says_no_if_it_has_what_came_before_and_since_and_a_search_finds_that() {
    let fake = Fake::start().await;
    let shop = fake.in_doubt(&[ANN]).await;
    let (old, new) = (other(-HOUR, 1), other(2, 2));
    let unnamed = (now() + 2, "Subject: x\r\n\r\nx\r\n".to_owned());
    let wrong: [&[_]; 5] = [
        &[],
        std::slice::from_ref(&old),
        &[other(HOUR, 1), new.clone()],
        &[old.clone(), other(-HOUR, 3)],
        &[(now() - HOUR, unnamed.1.clone()), unnamed],
    ];
    // Long enough that a "no" would be believed.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    for mailbox in wrong {
        fake.has(mailbox);
        assert!(matches!(&shop.run().await[ANN], Became::Unknown(_)), "{mailbox:?}");
    }
    let many: Vec<_> = (3..40).map(|number| other(-HOUR, number)).collect();
    fake.has(&[&[old], &many[..], &[new]].concat());
    let wrong = [
        Answers::Nothing,
        Answers::NothingSaid,
        Answers::No,
        Answers::Bad,
        Answers::AnotherDone,
        Answers::Closes,
        Answers::ClosesInTheMidst,
        Answers::Nonsense,
    ];
    for answers in wrong {
        *fake.shared.answers.lock().unwrap() = answers;
        assert!(matches!(&shop.run().await[ANN], Became::Unknown(_)), "{answers:?}");
    }
    *fake.shared.answers.lock().unwrap() = Answers::Rightly;
    for lets_in in [LetsIn::Nobody, LetsIn::NotWithThisPassword, LetsIn::Nowhere] {
        *fake.shared.lets_in.lock().unwrap() = lets_in;
        let asking = shop.rules.asking.clone().unwrap();
        assert!(asking.check().await.is_err(), "{lets_in:?}: it is told before anything is sent");
        assert!(matches!(&shop.run().await[ANN], Became::Unknown(_)), "{lets_in:?}");
    }
    *fake.shared.lets_in.lock().unwrap() = LetsIn::Us;
    assert_eq!(shop.rules.asking.clone().unwrap().check().await, Ok(()));
    assert_eq!(shop.server.all_ended(), 1);
    while !matches!(shop.run().await.get(ANN), Some(Became::Sent(_))) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(shop.server.all_ended(), 2);
    assert_eq!(shop.server.ended(ANN)[0], shop.server.ended(ANN)[1], "the same bytes");
}
