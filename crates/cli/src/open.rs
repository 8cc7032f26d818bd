//! Transactions of callers' own on a store that is to be at rest: one that has claimed could commit
//! its claim after the records were copied. One that has not used the store yet cannot be seen.

use onlyonce_mysql::Mysql;
use onlyonce_postgres::Postgres;
use onlyonce_store::OpenTransactions;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::place::Place;
use crate::set;

/// Refuses a store on which one is open, and says so where nobody can see it.
pub(crate) async fn refuse(store: &Place) -> Result<(), Failure> {
    for place in set::each(store)? {
        match seen(&place).await? {
            OpenTransactions::None => {}
            OpenTransactions::Some(which) => {
                let text = format!("{place}: transactions are open that have used it: {which}");
                return Err(Failure::new(Exit::Refused, text).with_hint(
                    "end them: one that has claimed could commit its claim after this",
                ));
            }
            OpenTransactions::Unseen(fix) => {
                output::line(&format!(
                    "note: {place} does not tell whether transactions of programs are open; end \
                     them yourself, or {fix}"
                ))?;
            }
        }
    }
    Ok(())
}

async fn seen(place: &Place) -> Result<OpenTransactions, Failure> {
    let seen = match &place.taking() {
        Place::Postgres(address) => Postgres::open_transactions(address.clone()).await,
        Place::Mysql(address) => Mysql::open_transactions(address.clone()).await,
        // In a file such a transaction keeps all others from writing, the mark of the copy too; and
        // in the others there are none.
        Place::Sqlite(_)
        | Place::Journal(_)
        | Place::Redis(_)
        | Place::Etcd(_)
        | Place::Spread(_) => Ok(OpenTransactions::None),
    };
    seen.map_err(|error| place.failure(&error))
}
