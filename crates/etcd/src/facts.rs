//! The facts of a store, which are looked at before it is used, and what a doctor tells of all.

use onlyonce_store::{Check, Checks, Need, OpenError, OpenErrorKind};

use crate::door;
use crate::layout::{FORMAT, Facts, Layout};
use crate::members::Members;
use crate::target::Target;
use crate::wire::{Op, Txn};

const STORE: Need = Need::new("store", "made by `onlyonce store init`");
const FACTS: Need = Need::new("facts", "those of a store");
const FORMAT_KNOWN: Need = Need::new("format", "one that this program knows");
const HOME: Need = Need::new("made in", "this cluster");
const NEEDS: [Need; 4] = [STORE, FACTS, FORMAT_KNOWN, HOME];

/// What becomes of a store that was made in another cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Brought {
    Refused,
    LetIn,
}

/// The store's facts, if it is one that this program knows, and was made in this cluster.
///
/// # Errors
/// There is none, it is a newer program's, it was brought here, or no member answers.
pub(crate) async fn look(
    members: &Members,
    layout: &Layout,
    (cluster, brought): (u64, Brought),
    checks: &mut Checks,
) -> Result<Facts, OpenError> {
    let read = members.read(Txn::of(Op::get(layout.store()))).await;
    let place = checks.place().to_owned();
    let unavailable = |text: &str| OpenError::new(OpenErrorKind::Unavailable, &*place, text);
    let found = read.map_err(|fault| unavailable(fault.text()))?;
    let Some(found) = found.first() else {
        let fix = "`onlyonce store init` makes one";
        let kind = OpenErrorKind::Missing;
        return Err(checks.refuse(kind, STORE, "none", "there is no store here", fix));
    };
    checks.good(STORE, "there");
    let Some(facts) = Facts::read(&found.value) else {
        let why = "its facts are none of a store";
        let fix = "choose another prefix";
        return Err(checks.refuse(OpenErrorKind::Foreign, FACTS, "something else", why, fix));
    };
    checks.good(FACTS, "there");
    if facts.format != FORMAT {
        let why = format!("its format is {}, and this program knows {FORMAT}", facts.format);
        let (kind, says) = (OpenErrorKind::Newer, facts.format.to_string());
        return Err(checks.refuse(kind, FORMAT_KNOWN, says, &why, "use a newer onlyonce"));
    }
    checks.good(FORMAT_KNOWN, facts.format.to_string());
    let is_home = facts.cluster == cluster;
    let why = "it was made in another cluster: a snapshot was restored, and what ran after it was \
               taken would run again";
    let fix = format!(
        "`onlyonce store restored --store {place}` makes it safe to use, once no process uses it"
    );
    let is_let_in = is_home || brought == Brought::LetIn;
    checks.must(HOME, format!("{:x}", facts.cluster), is_let_in, why, &fix);
    Ok(facts)
}

/// Everything that is looked at when the store is opened, at each member, with what was found.
/// Nothing is changed.
pub async fn doctor(target: &Target) -> Vec<Check> {
    let place = target.to_string();
    let mut checks = Checks::at(&*place);
    let mut told = Vec::new();
    match Members::new(target) {
        Ok(members) => {
            let (of_members, cluster) = door::doctor(&members, target).await;
            told = of_members;
            if let Some(cluster) = cluster {
                let layout = Layout::new(&target.prefix);
                let home = (cluster, Brought::Refused);
                let read = look(&members, &layout, home, &mut checks).await;
                if let Err(error) = read {
                    checks.failed(STORE, &error);
                }
            }
        }
        Err(error) => checks.failed(STORE, &error),
    }
    told.extend(checks.finish(&NEEDS));
    told
}
