//! What a spool is bound to: the store that has its records, and, while there are messages of which
//! nobody knows, the server or provider that may have them.

use std::path::Path;

use onlyonce::Engine;
use onlyonce_core::{Secret, StateKind};
use onlyonce_mail::{Sender, Shelf, Spool, SpoolError, sender_name};

use super::{RunArgs, journal, spool};
use crate::exit::Exit;
use crate::failure::Failure;

/// The spool, and the folder and the secret of the journal that has its records.
pub(super) fn to_store(args: &RunArgs) -> Result<(Spool, (&Path, Secret)), Failure> {
    let spool = spool(&args.spool)?;
    let (dir, secret) = journal(&args.store)?;
    let owns = spool.belongs_to(&sender_name(&secret));
    if owns.map_err(|error| Failure::new(Exit::Unavailable, error.to_string()))? {
        return Ok((spool, (dir, secret)));
    }
    let place = args.spool.spool.display();
    let text = format!(
        "{place}: another store has the records of what was sent from this spool, and this one \
         would send it again"
    );
    let hint = format!(
        "nothing was sent: name that store, or another spool; if that store is lost, look at what \
         waits, then remove {place}/store"
    );
    Err(Failure::new(Exit::Refused, text).with_hint(hint))
}

/// Whatever is done about doubts asks whoever messages go to now, and says nothing of another. So
/// nothing is sent by another way while there are doubts, unless they are held.
pub(super) async fn to_way(
    spool: &Spool,
    engine: &Engine,
    secret: &Secret,
    way: &str,
    holds: bool,
) -> Result<(), Failure> {
    let mut ways = spool.ways().map_err(unreadable)?;
    if ways == [way] {
        return Ok(());
    }
    if ways.is_empty() || !is_in_doubt(spool, engine, secret).await? {
        return spool.note_ways(&[way.to_owned()]).map_err(unreadable);
    }
    let others: Vec<&str> = ways.iter().map(String::as_str).filter(|it| *it != way).collect();
    if !holds {
        let others = others.join(", ");
        let text = format!(
            "nobody may know of some messages whether {others} has them, and this run goes by \
             {way}, which cannot tell; nothing was sent"
        );
        let hint = "settle them, see `onlyonce mail status`; or say --on-unknown hold; if it is \
                    the same server by another name, remove the file `ways` in the spool";
        return Err(Failure::new(Exit::Refused, text).with_hint(hint));
    }
    if !ways.iter().any(|it| it == way) {
        ways.push(way.to_owned());
        spool.note_ways(&ways).map_err(unreadable)?;
    }
    Ok(())
}

/// Whether there is a message of which nobody knows, or may not know soon.
async fn is_in_doubt(spool: &Spool, engine: &Engine, secret: &Secret) -> Result<bool, Failure> {
    for name in spool.names(Shelf::Queue).map_err(unreadable)? {
        // One that cannot be read now may be made anew from its row, or be readable later.
        let Ok(message) = spool.read(Shelf::Queue, &name) else { return Ok(true) };
        let id = Sender::id(secret, &message);
        let id = id.map_err(|error| Failure::new(Exit::Unavailable, error.to_string()))?;
        let state = engine.get(id).await?.map(|record| record.state.kind());
        if matches!(state, Some(StateKind::Unknown | StateKind::InFlight)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn unreadable(error: SpoolError) -> Failure {
    Failure::new(Exit::Unavailable, error.to_string())
}
