//! `onlyonce generate`

use clap::CommandFactory as _;

use crate::args::{Cli, GenerateCommand};
use crate::failure::Failure;
use crate::output;

pub(crate) fn run(command: &GenerateCommand) -> Result<(), Failure> {
    let mut text = Vec::new();
    match command {
        GenerateCommand::Man => clap_mangen::Man::new(Cli::command()).render(&mut text)?,
        GenerateCommand::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "onlyonce", &mut text);
        }
    }
    Ok(output::raw(&text)?)
}
