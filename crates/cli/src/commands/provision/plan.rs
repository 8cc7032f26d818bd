//! `onlyonce plan`

use onlyonce_provision::{Forecast, Would};

use super::words::{self, Line};
use super::{ForecastArgs, Site};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{self, printable};
use crate::progress::Bar;

pub(crate) async fn run(args: ForecastArgs) -> Result<(), Failure> {
    let site = Site::open(&args.plan, false).await?;
    let bar = Bar::waiting("looking");
    let forecasts = site.provisioner.forecast().await;
    drop(bar);
    site.close();
    let forecasts = forecasts?;
    show(&args, &forecasts)?;
    let left = forecasts.iter().filter(|it| !matches!(it.would, Would::Nothing(_))).count();
    if left == 0 {
        return Ok(());
    }
    let text = format!("{left} of {} resources are not as the plan says", forecasts.len());
    Err(Failure::new(Exit::Refused, text))
}

fn show(args: &ForecastArgs, forecasts: &[Forecast]) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for Forecast { key, kind, would } in forecasts {
        let (id, about) = about(would);
        if args.json {
            let would = Some(would.word());
            let line = Line { key, kind: Some(kind), would, id, about, ..Line::default() };
            output::line(&line.json()?)?;
            continue;
        }
        let id = printable(id.unwrap_or_default());
        rows.push([
            key.clone(),
            (*kind).to_owned(),
            would.word().to_owned(),
            id,
            printable(&about),
        ]);
    }
    if !args.json {
        output::line(&output::table(["KEY", "KIND", "WOULD", "ID", "WHY"], &rows))?;
    }
    Ok(())
}

fn about(would: &Would) -> (Option<&str>, String) {
    match would {
        Would::Nothing(receipt) => (Some(&receipt.id), words::how(receipt).to_owned()),
        Would::Create(why) => (None, why.clone()),
        Would::Adopt(id) => (Some(id), "it is there with our marker".to_owned()),
        Would::After(on) => (None, format!("once {on} is there, of which it needs the id")),
        Would::Stands(became) => (became.id(), words::about(became)),
    }
}
