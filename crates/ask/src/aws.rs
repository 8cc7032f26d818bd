//! AWS Signature Version 4, for the one kind of request that is sent by us: a POST without a query,
//! to a path of plain characters.

use std::time::{Duration, UNIX_EPOCH};

use hmac::{Hmac, Mac as _};
use onlyonce_core::Timestamp;
use sha2::{Digest as _, Sha256};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Who asks.
pub struct Credentials {
    key: String,
    secret: String,
    session: Option<String>,
}

impl Credentials {
    /// Those that AWS's own tools read: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, for a
    /// while, `AWS_SESSION_TOKEN`.
    ///
    /// # Errors
    /// One of the first two is not set; it is named.
    pub fn of_environment() -> Result<Self, String> {
        let variable = |name: &str| std::env::var(name).ok().filter(|it| !it.is_empty());
        let needed = |name: &str| variable(name).ok_or_else(|| format!("{name} is not set"));
        Ok(Self {
            key: needed("AWS_ACCESS_KEY_ID")?,
            secret: needed("AWS_SECRET_ACCESS_KEY")?,
            session: variable("AWS_SESSION_TOKEN"),
        })
    }
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The region, such as `eu-central-1`.
    pub region: &'a str,
    /// The service, by the name that signatures use for it.
    pub service: &'a str,
    /// The host, with its port if it is not the usual one.
    pub host: &'a str,
    /// The path: letters, digits, `/`, `-`, `_`, `.` and `~`, which are signed as they stand.
    pub path: &'a str,
}

/// The header fields of a signed POST, but for its length; `media` is its `content-type`. AWS takes
/// it for some minutes around `now`.
pub fn signed(
    credentials: &Credentials,
    target: Target<'_>,
    media: &str,
    body: &str,
    now: Timestamp,
) -> Vec<(&'static str, String)> {
    let Target { region, service, host, path } = target;
    let at = time(now);
    let mut fields = vec![
        ("content-type", media.to_owned()),
        ("host", host.to_owned()),
        ("x-amz-date", at.clone()),
    ];
    fields.extend(credentials.session.clone().map(|it| ("x-amz-security-token", it)));
    let names = fields.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let lines: String = fields.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let request = format!("POST\n{path}\n\n{lines}\n{names}\n{}", hex(&Sha256::digest(body)));
    let day = at.get(..8).unwrap_or_default();
    let scope = format!("{day}/{region}/{service}/aws4_request");
    let text = format!("{ALGORITHM}\n{at}\n{scope}\n{}", hex(&Sha256::digest(request)));
    let first = format!("AWS4{}", credentials.secret).into_bytes();
    let parts = [day, region, service, "aws4_request"];
    let key = parts.iter().fold(first, |key, part| mac(&key, part));
    let signature = hex(&mac(&key, &text));
    let key = &credentials.key;
    let says = format!(
        "{ALGORITHM} Credential={key}/{scope}, SignedHeaders={names}, Signature={signature}"
    );
    fields.push(("authorization", says));
    fields
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = <Hmac<Sha256>>::new_from_slice(key)
        .unwrap_or_else(|_| unreachable!("HMAC takes keys of every length"));
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `20150830T123600Z`
fn time(now: Timestamp) -> String {
    let at = UNIX_EPOCH.checked_add(Duration::from_millis(now.as_millis())).unwrap_or(UNIX_EPOCH);
    let text = humantime::format_rfc3339_seconds(at).to_string();
    text.chars().filter(|it| !"-:".contains(*it)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALONE: &str = "f2b825dc2705cbae7af699092854f77faa20c609116c8d089262bebceb589a75";
    const SESSION: &str = "0f4613ce982aba92a6ea3c7bd4f068a34a7bd7475ae9896e55b2faca17990c59";

    /// As botocore signs the same: `SigV4Auth(...).add_auth(...)` at that time.
    #[test]
    fn a_signature_is_the_one_that_other_tools_make() {
        let credentials = |session: Option<&str>| Credentials {
            key: "AKIDEXAMPLE".into(),
            secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
            session: session.map(str::to_owned),
        };
        let now = Timestamp::from_millis(1_440_938_160_000);
        assert_eq!(time(now), "20150830T123600Z");
        for (session, signature) in [(None, ALONE), (Some("a+token/="), SESSION)] {
            let host = "elasticloadbalancing.us-east-1.amazonaws.com";
            let (region, service) = ("us-east-1", "elasticloadbalancing");
            let body = "Action=DescribeLoadBalancers&Version=2015-12-01";
            let target = Target { region, service, host, path: "/" };
            let media = "application/x-www-form-urlencoded; charset=utf-8";
            let fields = signed(&credentials(session), target, media, body, now);
            let (_, says) = fields.last().unwrap();
            assert!(says.ends_with(&format!("Signature={signature}")), "{says}");
        }
    }
}
