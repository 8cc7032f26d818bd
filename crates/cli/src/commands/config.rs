//! `onlyonce config check`

use onlyonce_proxy::{Config, ConfigError, Ports};

use crate::args::ConfigCommand;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;

pub(crate) fn run(command: &ConfigCommand) -> Result<(), Failure> {
    let ConfigCommand::Check { file } = command;
    let config = Config::read(file, None)?;
    Ports::rehearse(&config).map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    for warning in config.warnings() {
        output::line(&format!("note: {warning}"))?;
    }
    let routes = config.routes.len();
    output::line(&format!("{} is valid: {routes} routes of their own", file.display()))?;
    Ok(())
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(Exit::Usage, error.to_string())
    }
}
