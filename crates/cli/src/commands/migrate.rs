//! `onlyonce store migrate`: tables and functions of an older store become what this program makes.

use clap::Args;
use onlyonce_mysql::Mysql;
use onlyonce_postgres::Postgres;
use onlyonce_sqlite::{Formats, Sqlite};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::place::Place;
use crate::set;

#[derive(Args, Debug)]
pub(crate) struct MigrateArgs {
    /// The store: sqlite:FILE, postgres://OWNER@.., mysql://OWNER@.., or spread:FILE for each of
    /// its members
    #[arg(long, value_name = "URL", env = "ONLYONCE_STORE", hide_env_values = true)]
    store: Place,
    /// No process uses it, and none will before this has ended; not asked for where its tables are
    /// of the newest format
    #[arg(long)]
    at_rest: bool,
}

pub(crate) async fn run(args: MigrateArgs) -> Result<(), Failure> {
    for place in set::each(&args.store)? {
        let Some(formats) = formats(&place).await? else {
            output::line(&format!("{place}: {}", without_tables(&place)))?;
            continue;
        };
        tables(&place, formats, args.at_rest).await?;
        rows(&place).await?;
        if functions(&place).await? {
            output::line(&format!(
                "{place}: its functions were of another onlyonce, or missing, and were made anew"
            ))?;
        }
    }
    Ok(())
}

/// Why nothing is to be done where there are no tables.
fn without_tables(place: &Place) -> &'static str {
    match place {
        Place::Journal(_) => {
            "a journal has no tables: nothing is to be done. An older format is read as it is, and \
             written anew as the journal goes on"
        }
        Place::Redis(_)
        | Place::Etcd(_)
        | Place::Sqlite(_)
        | Place::Postgres(_)
        | Place::Mysql(_)
        | Place::Spread(_) => {
            "it has no tables: nothing is to be done. Each record says which format it has, and \
             an older one is read as it is"
        }
    }
}

/// The formats of its tables, if it has any.
async fn formats(place: &Place) -> Result<Option<Formats>, Failure> {
    let found = match &place.taking() {
        Place::Sqlite(file) => Sqlite::formats(file),
        Place::Postgres(address) => Postgres::formats(address.clone()).await,
        Place::Mysql(address) => Mysql::formats(address.clone()).await,
        Place::Journal(_) | Place::Redis(_) | Place::Etcd(_) | Place::Spread(_) => return Ok(None),
    };
    found.map(Some).map_err(|error| place.failure(&error))
}

/// Takes the steps that are missing, and says what was done.
async fn tables(place: &Place, formats: Formats, at_rest: bool) -> Result<(), Failure> {
    let Formats { found, known } = formats;
    if formats.is_newest() {
        let text = format!("{place}: its tables are of format {found}, the newest: nothing is");
        output::line(&format!("{text} to be done"))?;
        return Ok(());
    }
    if found < known && !at_rest {
        let text = format!(
            "{place}: its tables are of format {found} and are to become {known}, and other \
             processes may have it open"
        );
        return Err(Failure::new(Exit::Usage, text)
            .with_hint("stop all of them, see to it that none starts, and say --at-rest"));
    }
    let took = match &place.taking() {
        Place::Sqlite(file) => Sqlite::migrate(file),
        Place::Postgres(address) => Postgres::migrate(address.clone()).await,
        Place::Mysql(address) => Mysql::migrate(address.clone()).await,
        Place::Journal(_) | Place::Redis(_) | Place::Etcd(_) | Place::Spread(_) => Ok(formats),
    };
    let found = took.map_err(|error| place.failure(&error))?.found;
    output::line(&format!(
        "{place}: its tables were of format {found} and are of {known} now; what is new is their \
         owner's: say the GRANTs of docs/stores-sql.md again"
    ))?;
    Ok(())
}

/// Makes rows of a table that belong to every store and that somebody has deleted.
async fn rows(place: &Place) -> Result<(), Failure> {
    let Place::Mysql(address) = &place.taking() else { return Ok(()) };
    let made = Mysql::renew_rows(address.clone()).await.map_err(|error| place.failure(&error))?;
    if 0 < made {
        let text = format!("{place}: {made} rows of onlyonce_revisions were missing and are made");
        output::line(&text)?;
    }
    Ok(())
}

/// Makes functions and procedures anew that are not this program's; whether it has.
async fn functions(place: &Place) -> Result<bool, Failure> {
    let made = match &place.taking() {
        Place::Postgres(address) => Postgres::renew_functions(address.clone()).await,
        Place::Mysql(address) => Mysql::renew_procedures(address.clone()).await,
        Place::Sqlite(_)
        | Place::Journal(_)
        | Place::Redis(_)
        | Place::Etcd(_)
        | Place::Spread(_) => Ok(false),
    };
    made.map_err(|error| {
        let failure = place.failure(&error);
        failure.with_hint(
            "its tables are as they must be; its functions are not, or this user may not see them",
        )
    })
}
