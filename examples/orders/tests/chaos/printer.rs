//! A printer of labels, which knows no keys and cannot be asked. Now and then its answer is lost.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::random::Random;

/// How long a label takes: long enough that a kill may strike meanwhile.
const TAKES: Duration = Duration::from_millis(20);

pub(crate) struct Printer {
    address: SocketAddr,
    labels: Arc<Mutex<Vec<String>>>,
}

impl Printer {
    pub(crate) fn start(seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let labels = Arc::new(Mutex::new(Vec::new()));
        let (printed, mut random) = (Arc::clone(&labels), Random::new(seed));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                print(stream, &printed, random.below(20) == 0);
            }
        });
        Self { address, labels }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The numbers of the orders whose labels lie in its tray.
    pub(crate) fn labels(&self) -> Vec<String> {
        self.labels.lock().unwrap().clone()
    }
}

fn print(mut stream: TcpStream, labels: &Mutex<Vec<String>>, is_lost: bool) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read(&mut byte), Ok(1)) {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let Some(path) = head.split(' ').nth(1) else { return };
    labels.lock().unwrap().push(path.trim_start_matches('/').to_owned());
    thread::sleep(TAKES);
    if !is_lost {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    }
}
