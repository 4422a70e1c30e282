//! The `cloakroom` command.

mod consume;
mod disk;
mod report;

use clap::{Args, Parser, Subcommand};
use std::process::ExitCode;

/// One-file storage for what is handed over once and must not be handed over twice.
///
/// Exit codes: 0 all is well; 1 a check failed (something was consumed twice, or was lost); 2 the command could not
/// be carried out.
#[derive(Debug, Parser)]
#[command(name = "cloakroom", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure the store on this machine and check what it promises.
    Bench(BenchArgs),
}

#[derive(Debug, Args)]
struct BenchArgs {
    #[command(subcommand)]
    workload: Workload,
}

#[derive(Debug, Subcommand)]
enum Workload {
    /// Consume form tokens from many threads at once, then reopen the file and check that each was consumed
    /// exactly once.
    Consume(consume::Options),
}

fn main() -> ExitCode {
    let Command::Bench(BenchArgs { workload: Workload::Consume(options) }) = Cli::parse().command;
    match consume::run(&options) {
        Ok(report) => {
            report.print(options.json);
            if report.holds() {
                ExitCode::SUCCESS
            } else {
                eprintln!("cloakroom: the check failed: {}", report.failure());
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("cloakroom: {error}");
            ExitCode::from(2)
        }
    }
}
