//! The program `tidegate`: one binary, one command for each role.
//!
//! Owns the command line, settings, what people see, and the process server that hosts the shards
//! (`server`, the only home of glommio). Formats, protocol, pipeline, vault and agent are crates
//! of their own; see docs/ARCHITECTURE.md.

mod bench;
mod choice;
mod cli;
mod commands;
mod config;
mod credentials;
mod failure;
mod maintenance;
mod mount;
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
    abort_on_panic();
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

/// A thread that panicked would leave the others waiting for it for ever. Nothing that was
/// acknowledged is lost by an end at any moment.
fn abort_on_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::abort();
    }));
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
