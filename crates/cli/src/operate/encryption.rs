//! Which keys a journal's answers are encrypted with, a page at a time.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{Desk, Told, cursor};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::vault::Vault;

pub(super) async fn page(desk: &Desk, after: Option<String>, renew: bool) -> Result<Told, Failure> {
    let vault = vault(desk)?;
    let turned = vault.page(cursor(after)?, renew).await?;
    let unread = turned.unread.iter().map(|(id, error)| format!("{id}: {error}"));
    Ok(Told::Encryption {
        unread: unread.collect(),
        found: turned.found,
        renewed: turned.renewed,
        next: turned.next.map(|cursor| BASE64.encode(cursor.0)),
        keys: vault.keys().to_vec(),
    })
}

/// Whoever has looked at all pages says so; with another newest key it was another journal's turn.
pub(super) fn settle(desk: &Desk, newest: &str) -> Result<Told, Failure> {
    let vault = vault(desk)?;
    let is_ours = vault.keys()[0] == newest;
    if is_ours {
        vault.settle()?;
    }
    let text = if is_ours { "done" } else { "another key is the newest now" };
    Ok(Told::Resolved { done: is_ours, text: text.to_owned(), key: None })
}

fn vault(desk: &Desk) -> Result<&Vault, Failure> {
    desk.vault.as_ref().ok_or_else(|| {
        let text = "no key file is given: answers are kept as they were sent";
        Failure::new(Exit::Refused, text).with_hint("docs/cli.md says how they are encrypted")
    })
}
