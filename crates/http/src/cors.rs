//! What pages of other origins need: to send the key, and to read our marks on answers.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::headers::{self, EXPOSED};

/// Whether a request only asks what a page may send (Fetch, "CORS-preflight request"). It never
/// has a key and never claims one.
pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Lets a page read our marks on an answer that it may read at all.
pub fn expose(response: &mut HeaderMap) {
    if response.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
        for name in EXPOSED {
            add_member(response, header::ACCESS_CONTROL_EXPOSE_HEADERS, name);
        }
    }
}

/// Adds the fields that carry a key to what a preflight's answer allows, if the page asks for
/// them and the answer allows its origin.
pub fn allow_key(request: &HeaderMap, response: &mut HeaderMap, key_names: &[HeaderName]) {
    if !response.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
        return;
    }
    let ours = [headers::FIRST_SENT, headers::REPLAY_ONLY];
    for name in key_names.iter().chain(&ours) {
        let asked =
            headers::has_member(request, &header::ACCESS_CONTROL_REQUEST_HEADERS, name.as_str());
        if asked {
            add_member(response, header::ACCESS_CONTROL_ALLOW_HEADERS, name.as_str());
        }
    }
}

/// Adds to a comma-separated field. A `*` does not stand for it: with credentials it is no
/// wildcard.
fn add_member(headers: &mut HeaderMap, name: HeaderName, member: &str) {
    if !headers::has_member(headers, &name, member) {
        headers.append(name, headers::value(member));
    }
}

/// Which origins may read answers that are made here: problems and replays. What the upstream
/// said to the first caller's origin is not kept, so without this no page can read a replay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    /// The origins, as browsers send them.
    pub origins: Origins,
    /// Whether requests with cookies or other credentials may read answers.
    pub credentials: bool,
}

/// A set of origins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origins {
    /// None.
    #[default]
    None,
    /// These.
    List(Vec<HeaderValue>),
    /// All.
    Any,
}

impl Cors {
    /// Lets the page that sent `request` read an answer, unless the answer speaks for itself.
    pub fn apply(&self, request: &HeaderMap, response: &mut HeaderMap) {
        if response.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
            return expose(response);
        }
        if self.origins != Origins::None {
            add_member(response, header::VARY, "Origin");
        }
        let Some(origin) = request.get(header::ORIGIN) else { return };
        let allowed = match &self.origins {
            Origins::None => false,
            Origins::List(list) => list.contains(origin),
            Origins::Any => true,
        };
        if allowed {
            response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            if self.credentials {
                let yes = HeaderValue::from_static("true");
                response.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
            }
            expose(response);
        }
    }

    /// Completes the answer to a preflight of an upstream that knows no CORS: what is asked for
    /// is allowed to the configured origins.
    pub fn apply_preflight(
        &self,
        request: &HeaderMap,
        response: &mut HeaderMap,
        key_names: &[HeaderName],
    ) {
        if response.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
            return allow_key(request, response, key_names);
        }
        self.apply(request, response);
        if !response.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
            return;
        }
        for (asked, allow) in [
            (header::ACCESS_CONTROL_REQUEST_METHOD, header::ACCESS_CONTROL_ALLOW_METHODS),
            (header::ACCESS_CONTROL_REQUEST_HEADERS, header::ACCESS_CONTROL_ALLOW_HEADERS),
        ] {
            if let Some(value) = request.get(asked) {
                response.insert(allow, value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::IDEMPOTENCY_KEY;

    fn fields(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn preflight() -> HeaderMap {
        fields(&[
            ("origin", "https://shop.example"),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type, idempotency-key"),
        ])
    }

    fn shop() -> Cors {
        let origins = Origins::List(vec![HeaderValue::from_static("https://shop.example")]);
        Cors { origins, credentials: true }
    }

    /// Case B97.
    #[test]
    fn a_preflight_is_known_and_may_send_the_key_where_the_upstream_allows_the_origin() {
        assert!(is_preflight(&Method::OPTIONS, &preflight()));
        assert!(!is_preflight(&Method::POST, &preflight()));
        assert!(!is_preflight(&Method::OPTIONS, &HeaderMap::new()));
        let mut allowed = fields(&[
            ("access-control-allow-origin", "https://shop.example"),
            ("access-control-allow-headers", "Content-Type"),
        ]);
        allow_key(&preflight(), &mut allowed, &[IDEMPOTENCY_KEY]);
        let names = header::ACCESS_CONTROL_ALLOW_HEADERS;
        assert!(headers::has_member(&allowed, &names, "Idempotency-Key"));
        assert!(!headers::has_member(&allowed, &names, "Idempotency-First-Sent"));
        let mut refused = HeaderMap::new();
        allow_key(&preflight(), &mut refused, &[IDEMPOTENCY_KEY]);
        assert!(refused.is_empty());
    }

    /// Case B97.
    #[test]
    fn an_upstream_without_cors_is_helped_out_for_configured_origins_only() {
        let mut response = HeaderMap::new();
        shop().apply_preflight(&preflight(), &mut response, &[IDEMPOTENCY_KEY]);
        assert_eq!(response["access-control-allow-origin"], "https://shop.example");
        assert_eq!(response["access-control-allow-methods"], "POST");
        let mut other = HeaderMap::new();
        let mut request = preflight();
        request.insert("origin", HeaderValue::from_static("https://evil.example"));
        shop().apply_preflight(&request, &mut other, &[IDEMPOTENCY_KEY]);
        assert_eq!(other.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["vary"]);
    }

    /// Case B97.
    #[test]
    fn an_answer_of_ours_speaks_to_the_origin_that_asks_now() {
        let mut response = fields(&[("vary", "Accept")]);
        shop().apply(&preflight(), &mut response);
        assert_eq!(response["access-control-allow-origin"], "https://shop.example");
        assert_eq!(response["access-control-allow-credentials"], "true");
        assert!(headers::has_member(&response, &header::VARY, "origin"));
        for name in EXPOSED {
            let names = header::ACCESS_CONTROL_EXPOSE_HEADERS;
            assert!(headers::has_member(&response, &names, name), "{name}");
        }
        let mut none = HeaderMap::new();
        Cors::default().apply(&preflight(), &mut none);
        assert!(none.is_empty());
    }
}
