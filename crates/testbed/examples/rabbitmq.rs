//! A RabbitMQ broker for tests in other languages: it says its address, and ends when its standard
//! input does.

use std::io::Read as _;

use onlyonce_testbed::RabbitMq;

#[allow(clippy::print_stdout, reason = "that is how it says so")]
fn main() {
    let broker = RabbitMq::start();
    println!("{}", broker.url());
    let mut rest = Vec::new();
    // However it ends, it is over.
    let _ = std::io::stdin().read_to_end(&mut rest);
}
