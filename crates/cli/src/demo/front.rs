//! What a person's browser talks to: the page, what the shops have done, and two lanes.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::CONTENT_SECURITY_POLICY;
use http::{HeaderValue, Method, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::json;
use tokio::net::TcpListener;

use super::connection::BadConnection;
use super::serve::{Answer, NoAnswer, answer, say, serve};
use super::shop::Shop;

const PAGE: &str = include_str!("page.html");
/// The page needs nothing from anywhere else.
const PAGE_MAY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src \
    'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// Where the page's shops are, on their servers.
pub(super) const PURCHASE: &str = "/page/purchase";

/// A way to a shop, over a bad connection.
pub(super) struct Lane {
    shop: Arc<Shop>,
    connection: BadConnection,
}

impl Lane {
    /// A lane to `shop`, which is reached at `to`: by itself or through a proxy.
    pub(super) const fn new(shop: Arc<Shop>, to: SocketAddr, seed: u64) -> Self {
        Self { shop, connection: BadConnection::new(to, seed) }
    }

    fn reset(&self) {
        self.shop.reset();
        self.connection.reset();
    }
}

/// The page and both lanes.
pub(super) struct Front {
    /// Straight to a shop.
    pub(super) without: Lane,
    /// Through onlyonce to another shop that is just like it.
    pub(super) with: Lane,
    /// What curl buys from. It counts by itself, so that the page's counts are the page's own.
    pub(super) curl: Arc<Shop>,
}

impl Front {
    /// Serves until it is dropped.
    pub(super) async fn run(self, listener: TcpListener) {
        let front = Arc::new(self);
        let handle = move |request| {
            let front = Arc::clone(&front);
            async move { front.answer(request).await }
        };
        serve(listener, handle).await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, NoAnswer> {
        let path = request.uri().path().to_owned();
        let is_post = request.method() == Method::POST;
        let is_get = request.method() == Method::GET;
        match path.as_str() {
            "/" if is_get => Ok(page()),
            "/state" if is_get => Ok(self.state()),
            "/reset" if is_post => {
                self.without.reset();
                self.with.reset();
                Ok(self.state())
            }
            "/without/purchase" if is_post => {
                self.without.connection.carry(request, PURCHASE).await
            }
            "/with/purchase" if is_post => self.with.connection.carry(request, PURCHASE).await,
            "/" | "/state" | "/reset" | "/without/purchase" | "/with/purchase" => {
                Ok(say(StatusCode::METHOD_NOT_ALLOWED, "Not with this method."))
            }
            _ => Ok(say(StatusCode::NOT_FOUND, "There is nothing here; the page is at /.")),
        }
    }

    fn state(&self) -> Answer {
        let (without, with) = (self.without.shop.books(), self.with.shop.books());
        let state = json!({ "without": without, "with": with, "curl": self.curl.books() });
        answer(StatusCode::OK, "application/json", format!("{state}\n"))
    }
}

fn page() -> Answer {
    let mut page = answer(StatusCode::OK, "text/html; charset=utf-8", PAGE.to_owned());
    let may = HeaderValue::from_static(PAGE_MAY);
    page.headers_mut().insert(CONTENT_SECURITY_POLICY, may);
    page
}
