//! `onlyonce serve`

use std::sync::Arc;

use onlyonce_proxy::{Telemetry, raise_open_files};
use onlyonce_service::{Config, Credential, LISTEN, Listen, Place, token_file};

use super::running::{Ends, Running, Start, disk_max, few_files, log, second_signal};
use crate::args::ServeArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;

pub(crate) async fn run(args: ServeArgs) -> Result<(), Failure> {
    log(args.log, args.log_level);
    // Asked for first, so that a signal during the start ends cleanly too.
    let ends = Ends::new()?;
    let config = config(&args)?;
    let disk_max = disk_max(args.disk_max)?;
    let mut warnings = config.warnings();
    warnings.extend(few_files(config.limits.connections, raise_open_files()));
    let (limits, sweeping, listen) = (config.limits, config.sweeping(), config.listen.clone());
    let skew_max = config.skew_least();
    // Before the store, so that a start that fails here leaves no new one behind.
    let place = Place::take(config).await;
    let place = place.map_err(|error| Failure::new(Exit::Unavailable, error.to_string()))?;
    let telemetry = Arc::new(Telemetry::default());
    let (store, clock_is_right) = (&args.store, args.clock_is_right);
    let waiters = limits.waiters;
    let start = Start { store, disk_max, clock_is_right, waiters, sweeping, skew_max };
    let (running, stop) = Running::begin(start, ends, &telemetry).await?;
    let secret = running.opened.secret().clone();
    let server = place.serve_with(running.engine.clone(), secret, telemetry);
    running.greet(&warnings).await?;
    running.name(&args.store.store)?;
    match (server.local_addr()?, &listen) {
        (Some(address), _) => output::line(&format!("listening on http://{address} for claims"))?,
        (None, Listen::Unix(path)) => {
            output::line(&format!("listening on unix:{} for claims", path.display()))?;
        }
        (None, Listen::Tcp(address)) => output::line(&format!("listening on {address}"))?,
    }
    let left = tokio::select! {
        drained = server.serve(stop) => drained.left,
        () = second_signal() => usize::MAX,
    };
    running.end(left)
}

fn config(args: &ServeArgs) -> Result<Config, Failure> {
    let listen = match (&args.unix, args.listen) {
        (Some(path), _) => Some(Listen::Unix(path.clone())),
        (None, Some(address)) => Some(Listen::Tcp(address)),
        (None, None) => None,
    };
    let usage = |text: String| Failure::new(Exit::Usage, text);
    if let Some(file) = &args.config {
        let mut config = Config::read(file)?;
        config.listen = listen.unwrap_or(config.listen);
        return Ok(config);
    }
    let listen = listen.unwrap_or(Listen::Tcp(LISTEN));
    let credential = match (&args.token_file, &listen) {
        (Some(file), _) => token_file(file).map_err(usage)?,
        (None, Listen::Unix(_)) => Credential::Socket,
        (None, Listen::Tcp(_)) => {
            let text = "a port lets in whoever has a token, and there is none";
            return Err(usage(text.to_owned())
                .with_hint("name a file with --token-file, or use --unix or --config"));
        }
    };
    Ok(Config::for_one(listen, credential))
}
