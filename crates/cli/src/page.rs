//! The generated half of `docs/cli.md`: exit codes, and every command with its help.

use clap::{Command, CommandFactory as _};

use crate::args::Cli;
use crate::exit::Exit;

/// Where the generated half begins.
const MARK: &str = "<!-- from here on: written by crates/cli/src/page.rs -->\n";

fn written() -> String {
    let mut page = "\n## Exit codes\n\n| code | means |\n|---|---|\n".to_owned();
    for exit in Exit::ALL {
        page.push_str(&format!("| {} | {} |\n", exit as u8, exit.meaning()));
    }
    let mut command = Cli::command().term_width(100);
    command.build();
    add(&mut page, &mut command);
    page
}

/// A command's help, then those of its subcommands.
fn add(page: &mut String, command: &mut Command) {
    if command.get_name() == "help" {
        return;
    }
    let (name, help) = (command.get_bin_name().unwrap_or("onlyonce"), command.clone());
    page.push_str(&format!("\n## `{name}`\n\n```text\n"));
    for line in help.clone().render_long_help().to_string().lines() {
        page.push_str(line.trim_end());
        page.push('\n');
    }
    page.push_str("```\n");
    command.get_subcommands_mut().for_each(|command| add(page, command));
}

#[test]
fn the_page_says_what_the_help_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (by_hand, generated) = page.split_once(MARK).unwrap();
    if std::env::var_os("ONLYONCE_BLESS").is_some() {
        std::fs::write(path, format!("{by_hand}{MARK}{}", written())).unwrap();
        return;
    }
    let cut = generated.lines().find(|line| line.starts_with("onlyonce "));
    assert_eq!(cut, None, "an example has lost its indentation");
    assert!(generated == written(), "docs/cli.md is old: run cargo xtask docs");
}

#[test]
fn no_help_shows_what_stands_in_the_environment() {
    fn look(command: &Command) {
        let shown = |arg: &&clap::Arg| arg.get_env().is_some() && !arg.is_hide_env_values_set();
        let shown = command.get_arguments().find(shown).map(clap::Arg::get_id);
        assert_eq!(shown, None, "{}: hide_env_values = true", command.get_name());
        command.get_subcommands().for_each(look);
    }
    look(&Cli::command());
}
