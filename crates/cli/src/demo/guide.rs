//! What the demo prints: where the page is, and what to try with curl.

use std::net::SocketAddr;
use std::path::Path;

/// The whole text. A test runs its curl lines and gets what the lines above them promise.
pub(super) fn text(page: SocketAddr, proxy: SocketAddr, journal: &Path, kept: bool) -> String {
    // Keys of an earlier demo may stand in a journal that was kept.
    let key = format!("tap-{}", proxy.port());
    let buy = format!("curl -i http://{proxy}/purchase -H 'Idempotency-Key: \"{key}\"'");
    let ask = format!("curl -i http://{proxy}/purchase -H 'Idempotency-Key: \"{key}-unseen\"'");
    let journal = journal.display();
    let ends = if kept { "ends it; the journal stays" } else { "ends it and removes the journal" };
    format!(
        "\
The ticket shop is open. Its connection loses answers on purpose.

  http://{page}/
  Tap Purchase three times in each column and compare the charges.

Or use curl, straight to the proxy at {proxy}:

  # a first purchase: 201, executed
  {buy} -d card=4242
  # the same again: 201, replayed, the same receipt
  {buy} -d card=4242
  # the same key for another card: 422, mismatch
  {buy} -d card=5555
  # only ask, at no risk that it runs: 412, not-evaluated
  {ask} -H 'Idempotency-Replay-Only: ?1' -d card=4242
  # what the shops have done: one charge for \"curl\"
  curl http://{page}/state

The journal is in {journal}.
Ctrl-C {ends}."
    )
}
