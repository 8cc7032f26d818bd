//! Which keys a store's answers are encrypted with, a page at a time.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use onlyonce_core::Timestamp;
use onlyonce_vault::Settled;

use super::{Desk, Told, cursor, time};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::vault::Vault;

pub(super) async fn page(desk: &Desk, after: Option<String>, renew: bool) -> Result<Told, Failure> {
    let vault = vault(desk)?;
    let at = desk.engine.now().as_millis();
    let turned = vault.page(cursor(after)?, renew).await?;
    let unread = turned.unread.iter().map(|(id, error)| format!("{id}: {error}"));
    Ok(Told::Encryption {
        unread: unread.collect(),
        found: turned.found,
        renewed: turned.renewed,
        next: turned.next.map(|cursor| BASE64.encode(cursor.0)),
        keys: vault.keys().to_vec(),
        at,
    })
}

/// Whoever has looked at all pages says so, and when that was begun; with another newest key it was
/// another store's turn.
pub(super) async fn settle(desk: &Desk, newest: &str, began: u64) -> Result<Told, Failure> {
    let vault = vault(desk)?;
    let (done, text) = if vault.keys()[0] == newest {
        match vault.settle(Timestamp::from_millis(began)).await? {
            Settled::Done => (true, "done".to_owned()),
            Settled::Used(other) => {
                let (name, used) = (other.name, time(other.used));
                let text =
                    format!("a process may still encrypt with {name}: it was in use at {used}");
                (false, text)
            }
        }
    } else {
        (false, "another key is the newest now".to_owned())
    };
    Ok(Told::Resolved { done, text, key: None })
}

fn vault(desk: &Desk) -> Result<&Vault, Failure> {
    desk.vault.as_ref().ok_or_else(|| {
        let text = "no key file is given: answers are kept as they were sent";
        Failure::new(Exit::Refused, text).with_hint("docs/cli.md says how they are encrypted")
    })
}
