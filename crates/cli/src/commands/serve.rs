//! `onlyonce serve`

use std::sync::Arc;

use onlyonce::{Engine, Settings, Sweeper};
use onlyonce_proxy::{Telemetry, raise_open_files};
use onlyonce_service::{Config, Credential, LISTEN, Listen, Place, Server, token_file};
use onlyonce_tokio::TokioRuntime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::running::{Ends, disk_max, ended, few_files, log, open, second_signal, socket};
use crate::args::ServeArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operate::Desk;
use crate::output;
use crate::place::Opened;
use crate::vault::{self, Wrapped};

pub(crate) async fn run(args: ServeArgs) -> Result<(), Failure> {
    log(args.log, args.log_level);
    // Asked for first, so that a signal during the start ends cleanly too.
    let mut ends = Ends::new()?;
    let config = config(&args)?;
    let disk_max = disk_max(args.disk_max)?;
    let mut warnings = config.warnings();
    warnings.extend(few_files(config.limits.connections, raise_open_files()));
    let (limits, sweeping, listen) = (config.limits, config.sweeping(), config.listen.clone());
    // Before the store, so that a start that fails here leaves no new one behind.
    let place = Place::take(config).await;
    let place = place.map_err(|error| Failure::new(Exit::Unavailable, error.to_string()))?;
    let opened = open(&args.store.store, disk_max).await?;
    let telemetry = Arc::new(Telemetry::default());
    let clock_is_right = args.clock_is_right;
    let settings = Settings { waiters_max: limits.waiters, clock_is_right, ..Settings::default() };
    let Wrapped { store, vault } = vault::open(&opened, &args.store)?;
    let engine = Engine::start(
        store,
        Arc::new(TokioRuntime::new()),
        settings,
        Some(Arc::clone(&telemetry) as Arc<_>),
    )
    .await?;
    let renewing = vault.clone().map(|it| tokio::spawn(it.renew_all(engine.clone())));
    let desk = Desk { engine: engine.clone(), opened: opened.clone(), vault, policy: sweeping };
    let socket = socket(&opened, desk);
    let swept = tokio::spawn(Sweeper::new(engine.clone(), sweeping).run());
    let server = place.serve_with(engine, opened.secret().clone(), telemetry);
    let (poison, mut poisoned) = oneshot::channel();
    opened.on_poison(move |why| {
        let _ = poison.send(why.to_owned());
    });
    hello(&server, &listen, (&opened, &args), &warnings).await?;
    let mut why = None;
    let stop = async {
        tokio::select! {
            () = ends.wait() => {}
            Ok(said) = &mut poisoned => why = Some(said),
        }
    };
    let left = tokio::select! {
        drained = server.serve(stop) => drained.left,
        () = second_signal() => usize::MAX,
    };
    swept.abort();
    renewing.inspect(JoinHandle::abort);
    drop(socket);
    opened.close();
    ended(left, why)
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

async fn hello(
    server: &Server,
    listen: &Listen,
    (opened, args): (&Opened, &ServeArgs),
    warnings: &[String],
) -> Result<(), Failure> {
    for warning in warnings.iter().chain(opened.warnings()) {
        output::line(&format!("note: {warning}"))?;
    }
    let unknown = opened.unknown().await?;
    if 0 < unknown {
        output::line(&format!(
            "{unknown} outcomes are unknown; see `onlyonce keys list --state unknown`"
        ))?;
    }
    let place = &args.store.store;
    match opened.keys() {
        Some(keys) => output::line(&format!("records in {place}, {keys} keys"))?,
        None => output::line(&format!("records in {place}"))?,
    }
    match (server.local_addr()?, listen) {
        (Some(address), _) => output::line(&format!("listening on http://{address} for claims"))?,
        (None, Listen::Unix(path)) => {
            output::line(&format!("listening on unix:{} for claims", path.display()))?;
        }
        (None, Listen::Tcp(address)) => output::line(&format!("listening on {address}"))?,
    }
    Ok(())
}
