//! `onlyonce proxy`

use std::sync::Arc;

use onlyonce::{Engine, Settings, Sweeper};
use onlyonce_http::Keys;
use onlyonce_proxy::{Config, Drained, Ports, Server, Telemetry};
use onlyonce_tokio::TokioRuntime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::running::{Ends, disk_max, ended, few_files, log, open, second_signal, socket};
use crate::args::ProxyArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operate::Desk;
use crate::output;
use crate::place::{Opened, Place};
use crate::vault::{self, Wrapped};

pub(crate) async fn run(args: ProxyArgs) -> Result<(), Failure> {
    log(args.log, args.log_level);
    // Asked for first, so that a signal during the start ends cleanly too.
    let mut ends = Ends::new()?;
    let config = config(&args)?;
    let disk_max = disk_max(args.disk_max)?;
    let mut warnings = config.warnings();
    warnings.extend(few_files(config.limits.connections, onlyonce_proxy::raise_open_files()));
    let (limits, sweeping) = (config.limits, config.sweeping());
    let upstream = config.upstream.authority.clone();
    // Before the store, so that a start that fails here leaves no new one behind.
    let ports = Ports::bind(config).await;
    let ports = ports.map_err(|error| Failure::new(Exit::Unavailable, error.to_string()))?;
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
    let sweeping = tokio::spawn(Sweeper::new(engine.clone(), sweeping).run());
    let keys = Arc::new(Keys::new(opened.secret().clone()));
    let server = ports.serve_with(engine, keys, telemetry);
    let (poison, mut poisoned) = oneshot::channel();
    opened.on_poison(move |why| {
        let _ = poison.send(why.to_owned());
    });
    hello(&server, upstream.as_str(), (&opened, &args.store.store), &warnings).await?;
    let mut why = None;
    let stop = async {
        tokio::select! {
            () = ends.wait() => {}
            Ok(said) = &mut poisoned => why = Some(said),
        }
    };
    let drained = tokio::select! {
        drained = server.serve(stop) => drained,
        () = second_signal() => Drained { left: usize::MAX },
    };
    sweeping.abort();
    renewing.inspect(JoinHandle::abort);
    drop(socket);
    opened.close();
    ended(drained.left, why)
}

fn config(args: &ProxyArgs) -> Result<Config, Failure> {
    let mut config = match (&args.config, &args.upstream) {
        (Some(file), upstream) => Config::read(file, upstream.as_deref())?,
        (None, Some(upstream)) => Config::for_upstream(upstream)?,
        (None, None) => return Err(Failure::new(Exit::Usage, "there is no --upstream")),
    };
    if let Some(listen) = args.listen {
        config.listen = listen;
    }
    Ok(config)
}

async fn hello(
    server: &Server,
    upstream: &str,
    (opened, place): (&Opened, &Place),
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
    if let Some(admin) = server.admin_addr() {
        output::line(&format!("operators at http://{admin}"))?;
    }
    match opened.keys() {
        Some(keys) => output::line(&format!("records in {place}, {keys} keys"))?,
        None => output::line(&format!("records in {place}"))?,
    }
    output::line(&format!("listening on http://{} for {upstream}", server.local_addr()?))?;
    Ok(())
}
