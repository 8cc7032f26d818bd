//! A ticket shop that does what it is asked, each time it is asked. It knows no idempotency keys.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde::Serialize;
use serde_json::json;
use tokio::net::TcpListener;

use super::serve::{Answer, NoAnswer, answer, say, serve};

/// What one ticket costs, in whole euros.
const PRICE: u32 = 49;
/// How long the bank takes, so that impatient taps overlap.
const BANK_TAKES: Duration = Duration::from_millis(300);
/// Rows of seats, and seats in a row.
const ROWS: [char; 3] = ['A', 'B', 'C'];
const ROW_SEATS: usize = 8;
/// The largest order form, in bytes.
const FORM_BYTES_MAX: usize = 4 << 10;
const FIRST_RECEIPT: u32 = 7829;

/// A shop with a card terminal and numbered seats.
#[derive(Default)]
pub(super) struct Shop {
    books: Mutex<Books>,
}

/// What the shop has done since it was last reset. These are the effects that count.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Books {
    /// How often a card was charged.
    charges: u32,
    /// What the cards paid together, in euros.
    paid: u32,
    /// The seats that are booked.
    seats: Vec<String>,
    /// The receipts that were written.
    receipts: Vec<u32>,
    /// Receipts are numbered on through a reset: no two have the same number.
    #[serde(skip)]
    receipts_before: u32,
}

/// Shops under one roof, each at its path.
pub(super) type Mall = Arc<[(&'static str, Arc<Shop>)]>;

/// Serves `POST` to the path of each shop until it is dropped.
pub(super) async fn run(mall: Mall, listener: TcpListener) {
    let handle = move |request: Request<Incoming>| {
        let path = request.uri().path();
        let found = mall.iter().find(|(at, _)| *at == path).map(|(_, shop)| Arc::clone(shop));
        async move {
            Ok::<_, NoAnswer>(match found {
                Some(shop) => shop.answer(request).await,
                None => say(StatusCode::NOT_FOUND, "There is no shop here."),
            })
        }
    };
    serve(listener, handle).await;
}

impl Shop {
    /// What it has done.
    pub(super) fn books(&self) -> Books {
        self.books.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Frees all seats and forgets all charges.
    pub(super) fn reset(&self) {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        let receipts_before = books.receipts_before + books.charges;
        *books = Books { receipts_before, ..Books::default() };
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        if request.method() != Method::POST {
            return say(StatusCode::METHOD_NOT_ALLOWED, "Tickets are bought with POST.");
        }
        let form = Limited::new(request.into_body(), FORM_BYTES_MAX).collect().await;
        let form = form.map(|it| it.to_bytes()).unwrap_or_default();
        let Some(card) = card(&form) else {
            return say(StatusCode::BAD_REQUEST, "The order form needs card=, in digits.");
        };
        let Some(receipt) = self.sell(card) else {
            return say(StatusCode::CONFLICT, "Sold out.");
        };
        // Charged and booked already: who hangs up now has paid all the same.
        tokio::time::sleep(BANK_TAKES).await;
        answer(StatusCode::CREATED, "application/json", receipt)
    }

    /// Charges the card and books the next free seat, or finds that there is none.
    fn sell(&self, card: &str) -> Option<String> {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = books.seats.len();
        let seat = format!("{}{}", ROWS.get(taken / ROW_SEATS)?, taken % ROW_SEATS + 1);
        let receipt = FIRST_RECEIPT + books.receipts_before + books.charges;
        books.charges += 1;
        books.paid += PRICE;
        books.receipts.push(receipt);
        books.seats.push(seat.clone());
        let last = &card[card.len().saturating_sub(4)..];
        let text = json!({ "receipt": receipt, "seat": seat, "charged": PRICE, "card": last });
        Some(format!("{text}\n"))
    }
}

/// The card's number in a form such as `card=4242`.
fn card(form: &[u8]) -> Option<&str> {
    let form = std::str::from_utf8(form).ok()?;
    let card = form.trim_end().split('&').find_map(|it| it.strip_prefix("card="))?;
    let digits = (4..=19).contains(&card.len()) && card.bytes().all(|it| it.is_ascii_digit());
    digits.then_some(card)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_sells_as_often_as_it_is_asked_until_it_is_sold_out() {
        let shop = Shop::default();
        for _ in 0..24 {
            assert!(shop.sell("4242").is_some());
        }
        assert_eq!(shop.sell("4242"), None);
        let books = shop.books();
        assert_eq!((books.charges, books.paid), (24, 24 * PRICE));
        assert_eq!(books.seats[0], "A1");
        assert_eq!(books.seats[23], "C8");
    }

    #[test]
    fn receipts_are_numbered_on_after_a_reset() {
        let shop = Shop::default();
        shop.sell("4242");
        shop.reset();
        shop.sell("4242");
        assert_eq!(shop.books().receipts, [FIRST_RECEIPT + 1]);
        assert_eq!(shop.books().seats, ["A1"]);
    }

    #[test]
    fn cards_have_digits() {
        assert_eq!(card(b"card=4242"), Some("4242"));
        assert_eq!(card(b"item=1&card=42424242\n"), Some("42424242"));
        for form in [&b""[..], b"card=", b"card=42a2", b"card=123", b"\xff"] {
            assert_eq!(card(form), None);
        }
    }
}
