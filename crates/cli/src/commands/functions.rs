//! `onlyonce store functions`

use onlyonce_mysql::Mysql;
use onlyonce_postgres::Postgres;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::place::Place;

/// What was made, and what a program needs that calls it.
const IN_POSTGRES: &str = "\
onlyonce.claim and onlyonce.complete
a program that calls them needs no more than GRANT USAGE ON SCHEMA onlyonce and \
GRANT EXECUTE ON FUNCTION onlyonce.claim, onlyonce.complete";
const IN_MARIADB: &str = "\
onlyonce_claim and onlyonce_complete
a program that calls them needs no more than GRANT EXECUTE ON PROCEDURE onlyonce_claim, and the \
same on onlyonce_complete";

pub(crate) async fn run(place: Place) -> Result<(), Failure> {
    let (made, says) = match &place {
        Place::Postgres(address) => {
            (Postgres::install_functions(address.clone()).await, IN_POSTGRES)
        }
        Place::Mysql(address) => (Mysql::install_procedures(address.clone()).await, IN_MARIADB),
        Place::Journal(_)
        | Place::Sqlite(_)
        | Place::Redis(_)
        | Place::Etcd(_)
        | Place::Spread(_) => {
            let text = format!("{place}: functions are for a store in PostgreSQL or MariaDB only");
            return Err(Failure::new(Exit::Usage, text));
        }
    };
    made.map_err(|error| Failure::new(Exit::StoreUnavailable, error.to_string()))?;
    output::line(&format!("made in {place}: {says}"))?;
    Ok(())
}
