//! `onlyonce store functions`

use onlyonce_postgres::Postgres;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::place::Place;

pub(crate) async fn run(place: Place) -> Result<(), Failure> {
    let Place::Postgres(address) = &place else {
        let text = format!("{place}: functions are for a store in PostgreSQL only");
        return Err(Failure::new(Exit::Usage, text));
    };
    let made = Postgres::install_functions(address.clone()).await;
    made.map_err(|error| Failure::new(Exit::StoreUnavailable, error.to_string()))?;
    output::line(&format!(
        "made onlyonce.claim and onlyonce.complete in {place}\na program that calls them needs no \
         more than GRANT USAGE ON SCHEMA onlyonce and GRANT EXECUTE ON FUNCTION onlyonce.claim, \
         onlyonce.complete"
    ))?;
    Ok(())
}
