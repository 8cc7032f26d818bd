//! `onlyonce resources destroy`

use onlyonce_provision::Destroyed;

use super::{DestroyArgs, Site, until_ended, words};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{self, printable};
use crate::progress::Bar;

pub(super) async fn run(args: DestroyArgs) -> Result<(), Failure> {
    let site = Site::open(&args.which.plan, false).await?;
    let key = &args.which.key;
    let bar = Bar::waiting("destroying");
    let (by, why) = (&args.who.by, &args.who.why);
    let destroying = site.provisioner.destroy(key, &args.id, by, why, args.wait.into());
    // There is only one thing to do, so nothing more is begun anyway.
    let ended = until_ended(destroying, || {}).await;
    drop(bar);
    site.close();
    match ended?? {
        Destroyed::Gone(departure) => {
            let about = words::departed(&departure);
            let id = printable(&departure.id);
            Ok(output::line(&format!("destroyed {key} {id}: {}", printable(&about)))?)
        }
        Destroyed::Refused(text) => {
            let text = format!("{key}: nothing was destroyed: {}", printable(&text));
            Err(Failure::new(Exit::Refused, text))
        }
        Destroyed::Busy => {
            let text = format!("{key}: somebody else is destroying it: ask again later");
            Err(Failure::new(Exit::Refused, text))
        }
        Destroyed::Unrecorded { departure, remedy, why } => {
            let about = words::unrecorded("destroyed", departure.is_some(), remedy, &why);
            Err(Failure::new(Exit::Unknown, format!("{key}: {}", printable(&about))))
        }
        Destroyed::Unknown(doubt) => {
            let file = args.which.plan.file.display().to_string();
            let text = format!("{key}: {}", printable(&words::in_doubt(&doubt)));
            let hint = words::to_resolve(&file, key, &doubt);
            Err(Failure::new(Exit::Unknown, text).with_hint(hint))
        }
    }
}
