//! A RabbitMQ broker for tests in other languages: it says its address, and a second one with TLS,
//! and ends when its standard input does.

use std::io::Read as _;

use onlyonce_testbed::{Authority, RabbitMq};

#[allow(clippy::print_stdout, reason = "that is how it says so")]
fn main() {
    let authority = Authority::new();
    let broker = RabbitMq::start_with_tls(&authority, false);
    let (port, ca) = (broker.tls_address().port(), authority.certificate());
    println!("{}", broker.url());
    println!("amqps://guest:guest@localhost:{port}/%2f?ca={}", ca.display());
    let mut rest = Vec::new();
    // However it ends, it is over.
    let _ = std::io::stdin().read_to_end(&mut rest);
}
