//! The program `tidegate`: one binary, one command for each role.
//!
//! Owns the command line, settings, what people see, and the process server that hosts the shards
//! (`server`, the only home of glommio). Formats, protocol, pipeline, vault and agent are crates
//! of their own; see docs/ARCHITECTURE.md.

mod choice;
mod cli;
mod commands;
mod config;
mod credentials;
mod failure;
mod output;
mod server;
mod signals;
mod terminal;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::cli::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = start_log(&cli.output.log) {
        eprintln!("tidegate: --log '{}' can't be understood: {error}", cli.output.log);
        return ExitCode::from(2);
    }
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("tidegate: {failure}");
            ExitCode::from(failure.status())
        }
    }
}

/// Logs to standard error; results go to standard output.
fn start_log(filter: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::builder().parse(filter)?;
    // Colours only for eyes: a file or a journal would keep their escapes.
    let colours = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours);
    log.with_writer(std::io::stderr).init();
    Ok(())
}
