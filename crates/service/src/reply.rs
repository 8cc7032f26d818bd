//! Replies between the documents of the service and the bytes that a store keeps, which are those
//! of the proxy: what one has recorded the others can read.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use onlyonce_core::Reply;
use onlyonce_http::content::{self, ContentError};
use serde_json::value::RawValue;

use crate::wire::{Invalid, ReplyGiven, ReplyView};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// What a store is to keep. Content of more than `reply_max` bytes is left out.
///
/// # Errors
/// Content in two forms, or a media type for a form that has its own.
pub(crate) fn kept(given: ReplyGiven, reply_max: usize) -> Result<Reply, Invalid> {
    let ReplyGiven { status, media_type, json, text, base64 } = given;
    let status = u16::try_from(status.0).unwrap_or_else(|_| unreachable!("it is bounded"));
    if media_type.is_some() && base64.is_none() {
        let text = "a media type goes with base64: json and text have their own";
        return Err(Invalid::new("reply.media_type", text));
    }
    let (media_type, body) = match (json, text, base64) {
        (None, None, None) => (None, Bytes::new()),
        (Some(json), None, None) => (Some(JSON), Bytes::from(Box::<str>::from(json).into_string())),
        (None, Some(text), None) => (Some(TEXT), Bytes::from(text)),
        (None, None, Some(bytes)) => (Some(media_type.map_or(BYTES, |it| it.0)), bytes.0),
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) | (None, Some(_), Some(_)) => {
            return Err(Invalid::new("reply", "give one of json, text and base64"));
        }
    };
    let fields: HeaderMap = media_type.map(|it| (header::CONTENT_TYPE, it)).into_iter().collect();
    let content = content::whole(&fields, &body);
    if reply_max < content.len() {
        return Ok(Reply::not_kept(status));
    }
    Ok(Reply::kept(status, content))
}

/// What was kept, as it is told; `None` if its content was not.
///
/// # Errors
/// The content is not one that [`kept`] or the proxy has made.
pub(crate) fn view(reply: &Reply) -> Result<Option<ReplyView>, ContentError> {
    let Some(content) = reply.content() else { return Ok(None) };
    let content = content::decode(content)?;
    let media_type = content.headers.get(header::CONTENT_TYPE);
    let media_type = media_type.map(|it| String::from_utf8_lossy(it.as_bytes()).into_owned());
    let mut view =
        ReplyView { status: reply.status(), media_type, json: None, text: None, base64: None };
    let body = content.body;
    let Some(media_type) = &view.media_type else {
        // An answer without a type that has bytes all the same came through the proxy.
        view.base64 = (!body.is_empty()).then(|| STANDARD.encode(&body));
        return Ok(Some(view));
    };
    let text = std::str::from_utf8(&body).ok();
    let json = || serde_json::from_str::<Box<RawValue>>(text?).ok();
    if is_json(media_type)
        && let Some(json) = json()
    {
        view.json = Some(json);
    } else if media_type.eq_ignore_ascii_case("text/plain; charset=utf-8")
        && let Some(text) = text
    {
        view.text = Some(text.to_owned());
    } else {
        view.base64 = Some(STANDARD.encode(&body));
    }
    Ok(Some(view))
}

fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
        || essence.to_ascii_lowercase().ends_with("+json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::read;

    fn there_and_back(given: &str) -> String {
        let given: ReplyGiven = read(given.as_bytes()).unwrap();
        let view = view(&kept(given, 1 << 20).unwrap()).unwrap();
        serde_json::to_string(&view).unwrap()
    }

    #[test]
    fn content_comes_back_as_it_was_given() {
        for (given, told) in [
            (
                r#"{"json":{"n": 10.00, "m":123456789012345678901}}"#,
                concat!(
                    r#"{"status":200,"media_type":"application/json","#,
                    r#""json":{"n": 10.00, "m":123456789012345678901}}"#
                ),
            ),
            (r#"{"json":null}"#, r#"{"status":200,"media_type":"application/json","json":null}"#),
            (
                r#"{"status":0,"text":"confirmed, é"}"#,
                r#"{"status":0,"media_type":"text/plain; charset=utf-8","text":"confirmed, é"}"#,
            ),
            (
                r#"{"status":65535,"base64":"/w==","media_type":"image/png"}"#,
                r#"{"status":65535,"media_type":"image/png","base64":"/w=="}"#,
            ),
            (r#"{"status":204}"#, r#"{"status":204}"#),
        ] {
            assert_eq!(there_and_back(given), told);
        }
    }

    #[test]
    fn content_in_two_forms_is_refused() {
        for (given, field) in [
            (r#"{"json":1,"text":"1"}"#, "reply"),
            (r#"{"json":null,"base64":""}"#, "reply"),
            (r#"{"text":"1","media_type":"text/html"}"#, "reply.media_type"),
        ] {
            let given: ReplyGiven = read(given.as_bytes()).unwrap();
            assert_eq!(kept(given, 1 << 20).unwrap_err().field, field);
        }
    }

    #[test]
    fn what_is_too_large_is_answered_and_not_kept() {
        let given: ReplyGiven = read(br#"{"status":201,"text":"0123456789"}"#).unwrap();
        assert_eq!(kept(given.clone(), 20).unwrap(), Reply::not_kept(201));
        assert!(kept(given, 100).unwrap().content().is_some());
    }
}
