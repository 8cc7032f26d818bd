//! A RabbitMQ broker for tests in other languages: it says its address, and a second one with TLS,
//! and ends when its standard input does. With the argument `certified` it asks with TLS who its
//! clients are, and says two more lines: options for an address that name a certificate of the user
//! `guest`, and others with one that somebody else gave to a `guest`.

use std::io::Read as _;

use onlyonce_testbed::{Authority, RabbitMq};

#[allow(clippy::print_stdout, reason = "that is how it says so")]
fn main() {
    let authority = Authority::new();
    let certified = std::env::args().any(|it| it == "certified");
    let broker = RabbitMq::start_with_tls(&authority, certified);
    let (port, ca) = (broker.tls_address().port(), authority.certificate());
    println!("{}", broker.url());
    println!("amqps://guest:guest@localhost:{port}/%2f?ca={}", ca.display());
    let other = Authority::new();
    for authority in [&authority, &other].into_iter().filter(|_| certified) {
        let pair = authority.client("guest");
        println!("cert={}&key={}", pair.certificate.display(), pair.key.display());
    }
    let mut rest = Vec::new();
    // However it ends, it is over.
    let _ = std::io::stdin().read_to_end(&mut rest);
}
