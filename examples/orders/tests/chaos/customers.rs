//! Customers: they order, ask again when they hear nothing, and call off.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

use crate::http::ask;
use crate::random::Random;

/// The pause between two orders of a customer, and between two tries.
const PAUSE: Duration = Duration::from_millis(300);

/// What a customer has done, by the number of the order.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) number: String,
    pub(crate) item: &'static str,
    pub(crate) quantity: u64,
    /// It was called off, and the shop had said that it never ships, before it was ordered.
    pub(crate) called_off_first: bool,
}

/// Customers that go on until they are told to go home.
pub(crate) struct Customers {
    closing: Arc<AtomicBool>,
    wishes: Arc<Mutex<Vec<Wish>>>,
    all: Vec<JoinHandle<()>>,
}

impl Customers {
    pub(crate) fn start(shop: SocketAddr, seed: u64) -> Self {
        let (closing, wishes) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let kinds: [fn(&mut Customer); 4] =
            [Customer::orders, Customer::orders, Customer::calls_off_first, Customer::hesitates];
        let all = kinds.into_iter().enumerate().map(|(at, kind)| {
            let mut customer = Customer {
                shop,
                random: Random::new(seed * 10 + at as u64),
                prefix: format!("c{at}"),
                count: 0,
                wishes: Arc::clone(&wishes),
            };
            let closing = Arc::clone(&closing);
            thread::spawn(move || {
                while !closing.load(Ordering::SeqCst) {
                    kind(&mut customer);
                    thread::sleep(PAUSE);
                }
            })
        });
        let all = all.collect();
        Self { closing, wishes, all }
    }

    /// Ends them, each after what it is about to do, and says what they wished for.
    pub(crate) fn go_home(self) -> Vec<Wish> {
        self.closing.store(true, Ordering::SeqCst);
        self.all.into_iter().for_each(|one| one.join().unwrap());
        self.wishes.lock().unwrap().clone()
    }
}

struct Customer {
    shop: SocketAddr,
    random: Random,
    prefix: String,
    count: u32,
    wishes: Arc<Mutex<Vec<Wish>>>,
}

impl Customer {
    /// Orders, and orders the same again.
    fn orders(&mut self) {
        let wish = self.wish(false);
        self.order(&wish);
        if self.random.below(3) == 0 {
            self.order(&wish);
            // Another order of the same number is none.
            let other = format!("{{\"item\":\"blender\",\"quantity\":{}}}", wish.quantity + 1);
            let path = format!("PUT /orders/{}", wish.number);
            assert!(!matches!(ask(self.shop, &path, &other), Some((202, _))));
        }
        self.wishes.lock().unwrap().push(wish);
    }

    /// The word overtakes the order: it is called off before it is sent.
    fn calls_off_first(&mut self) {
        let wish = self.wish(true);
        self.call_off(&wish);
        while !self.is_off(&wish) {
            thread::sleep(PAUSE);
        }
        self.order(&wish);
        self.wishes.lock().unwrap().push(wish);
    }

    /// Orders and calls off at the same time.
    fn hesitates(&mut self) {
        let wish = self.wish(false);
        self.order(&wish);
        let millis = self.random.below(1_000);
        thread::sleep(Duration::from_millis(millis));
        self.call_off(&wish);
        self.wishes.lock().unwrap().push(wish);
    }

    fn wish(&mut self, called_off_first: bool) -> Wish {
        self.count += 1;
        let number = format!("{}-{}", self.prefix, self.count);
        let item = if self.random.below(8) == 0 { "rarity" } else { "blender" };
        Wish { number, item, quantity: 1 + self.random.below(5), called_off_first }
    }

    /// Until the shop has taken it.
    fn order(&self, wish: &Wish) {
        let body = format!("{{\"item\":\"{}\",\"quantity\":{}}}", wish.item, wish.quantity);
        self.until_taken(&format!("PUT /orders/{}", wish.number), &body);
    }

    fn call_off(&self, wish: &Wish) {
        self.until_taken(&format!("POST /orders/{}/cancel", wish.number), "");
    }

    /// Whether the shop says that it never ships.
    fn is_off(&self, wish: &Wish) -> bool {
        let path = format!("/orders/{}", wish.number);
        known(self.shop, &path).is_some_and(|it| it["orders"][0]["cancel"] == "cancelled")
    }

    fn until_taken(&self, request: &str, body: &str) {
        loop {
            match ask(self.shop, request, body) {
                Some((202, _)) => return,
                Some((status, text)) => panic!("{request}: {status} {text}"),
                None => thread::sleep(PAUSE),
            }
        }
    }
}

/// All that the shop knows.
pub(crate) fn book(shop: SocketAddr) -> Option<Value> {
    known(shop, "/orders")
}

fn known(shop: SocketAddr, path: &str) -> Option<Value> {
    let (_, body) = ask(shop, &format!("GET {path}"), "").filter(|(status, _)| *status == 200)?;
    serde_json::from_str(&body).ok()
}
