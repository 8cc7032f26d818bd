//! `onlyonce proxy`

use std::sync::Arc;

use onlyonce_http::Keys;
use onlyonce_proxy::{Config, Ports, Telemetry};

use super::running::{Ends, Running, Start, disk_max, few_files, log, second_signal};
use crate::args::ProxyArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;

pub(crate) async fn run(args: ProxyArgs) -> Result<(), Failure> {
    log(args.log, args.log_level);
    // Asked for first, so that a signal during the start ends cleanly too.
    let ends = Ends::new()?;
    let config = config(&args)?;
    let disk_max = disk_max(args.disk_max)?;
    let mut warnings = config.warnings();
    warnings.extend(few_files(config.limits.connections, onlyonce_proxy::raise_open_files()));
    let (limits, sweeping, skew_max) = (config.limits, config.sweeping(), config.skew_least());
    let upstream = config.upstream.authority.clone();
    // Before the store, so that a start that fails here leaves no new one behind.
    let ports = Ports::bind(config).await;
    let ports = ports.map_err(|error| Failure::new(Exit::Unavailable, error.to_string()))?;
    let telemetry = Arc::new(Telemetry::default());
    let (store, clock_is_right) = (&args.store, args.clock_is_right);
    let waiters = limits.waiters;
    let start = Start { store, disk_max, clock_is_right, waiters, sweeping, skew_max };
    let (running, stop) = Running::begin(start, ends, &telemetry).await?;
    let keys = Arc::new(Keys::new(running.opened.secret().clone()));
    let server = ports.serve_with(running.engine.clone(), keys, telemetry);
    running.greet(&warnings).await?;
    if let Some(admin) = server.admin_addr() {
        output::line(&format!("operators at http://{admin}"))?;
    }
    running.name(&args.store.store)?;
    output::line(&format!("listening on http://{} for {upstream}", server.local_addr()?))?;
    let left = tokio::select! {
        drained = server.serve(stop) => drained.left,
        () = second_signal() => usize::MAX,
    };
    running.end(left)
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
