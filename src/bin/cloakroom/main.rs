//! The `cloakroom` command.

#[macro_use]
mod help;

mod backup;
mod bench;
mod compact;
mod completions;
mod dump;
mod export;
mod holder;
mod import;
mod output;
mod paths;
mod problem;
mod progress;
mod room;
mod salvage;
mod stats;
mod sweep;
mod units;
mod verify;

use clap::{Args, Parser, Subcommand};
use output::Output;
use problem::{Problem, Verdict};
use std::process::ExitCode;

/// Inspects, maintains, copies and salvages cloakroom files.
///
/// A cloakroom file (a "room") stores what is handed over once and must not be handed over twice,
/// lost, or kept too long.
#[derive(Debug, Parser)]
#[command(name = "cloakroom", version, after_long_help = help::OVERVIEW, max_term_width = 100)]
struct Cli {
    /// Print one JSON object per line to standard output, and an error as one on standard error.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Stats(stats::StatsOptions),
    Verify(verify::VerifyOptions),
    Salvage(salvage::SalvageOptions),
    Sweep(sweep::SweepOptions),
    Compact(compact::CompactOptions),
    Backup(backup::BackupOptions),
    Export(export::ExportOptions),
    Import(import::ImportOptions),
    Dump(dump::DumpOptions),
    Completions(completions::CompletionsOptions),
    /// Measure the store on this machine and check its guarantees.
    Bench(BenchArgs),
}

#[derive(Debug, Args)]
struct BenchArgs {
    #[command(subcommand)]
    workload: Workload,
}

#[derive(Debug, Subcommand)]
enum Workload {
    /// Consume form tokens from many threads at once, then reopen the file and check that each was
    /// consumed exactly once.
    ///
    /// Exit codes: 0 each was; 1 a token was consumed twice or changed by reopening; 2 the
    /// benchmark could not be run.
    Consume(bench::consume::ConsumeBenchOptions),
    Year(bench::year::YearBenchOptions),
    Backlog(bench::backlog::BacklogBenchOptions),
    Backup(bench::backup::BackupBenchOptions),
    Churn(bench::churn::ChurnBenchOptions),
    Bulk(bench::bulk::BulkBenchOptions),
}

fn main() -> ExitCode {
    let Cli { json, command } = Cli::parse();
    let mut out = Output::new(json);
    let ended = run(&command, &mut out).and_then(|verdict| out.finish().map(|()| verdict));
    // Output printed before the problem must appear before it.
    drop(out);
    match ended {
        Ok(Verdict::Fine) => ExitCode::SUCCESS,
        Ok(Verdict::Wrong) => ExitCode::FAILURE,
        Err(problem) => {
            problem.print(json);
            ExitCode::from(problem.exit_code())
        }
    }
}

fn run(command: &Command, out: &mut Output) -> Result<Verdict, Problem> {
    match command {
        Command::Stats(options) => stats::run(options, out),
        Command::Verify(options) => verify::run(options, out),
        Command::Salvage(options) => salvage::run(options, out),
        Command::Sweep(options) => sweep::run(options, out),
        Command::Compact(options) => compact::run(options, out),
        Command::Backup(options) => backup::run(options, out),
        Command::Export(options) => export::run(options, out),
        Command::Import(options) => import::run(options, out),
        Command::Dump(options) => dump::run(options, out),
        Command::Completions(options) => completions::run(options, out),
        Command::Bench(BenchArgs { workload: Workload::Year(options) }) => {
            bench::year::run(options, out)
        }
        Command::Bench(BenchArgs { workload: Workload::Backlog(options) }) => {
            bench::backlog::run(options, out)
        }
        Command::Bench(BenchArgs { workload: Workload::Backup(options) }) => {
            bench::backup::run(options, out)
        }
        Command::Bench(BenchArgs { workload: Workload::Churn(options) }) => {
            bench::churn::run(options, out)
        }
        Command::Bench(BenchArgs { workload: Workload::Bulk(options) }) => {
            bench::bulk::run(options, out)
        }
        Command::Bench(BenchArgs { workload: Workload::Consume(options) }) => {
            let report = bench::consume::run(options)?;
            report.print(out)?;
            if report.holds() {
                return Ok(Verdict::Fine);
            }
            eprintln!("cloakroom: the check failed: {}", report.failure());
            Ok(Verdict::Wrong)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
