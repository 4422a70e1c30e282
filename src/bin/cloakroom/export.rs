//! `cloakroom export`: everything in a room as lines of JSON.

use crate::output::Output;
use crate::paths::shown;
use crate::problem::{Problem, Verdict};
use crate::progress::Spinner;
use crate::room;
use crate::units;
use clap::Args;
use serde_json::json;
use std::io::IsTerminal;
use std::path::PathBuf;

/// Writes everything in a room to standard output, as lines of JSON.
///
/// The first line has the version of the lines, and the last one counts them, so that a truncation
/// is detected. Every other line is one entry of a store. `cloakroom import` makes the same room of
/// them, in any version that reads this version of the lines. FILE is only read.
///
/// The lines contain lookup keys, states and values in clear: they are as secret as FILE.
#[derive(Debug, Args)]
#[command(after_long_help = help_end!(
    "\
Examples:
  cloakroom export edge.cloak > edge.jsonl
  cloakroom export edge.cloak | zstd > edge.jsonl.zst
  cloakroom export edge.cloak | jq -c 'select(.entry == \"handoff\")'

The lines are JSON with and without --json. With it, a summary is written
as one JSON object to standard error at the end.",
    "cloakroom import, cloakroom dump (for people), cloakroom backup (faster)"
))]
pub struct ExportOptions {
    /// The room. It is only read.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub fn run(options: &ExportOptions, out: &mut Output) -> Result<Verdict, Problem> {
    let file = &options.file;
    let room = room::read_only(file)?;
    let spinner = Spinner::start("exporting".into());
    let said = |entries, bytes| {
        format!("{}, {}", units::counted(entries, "entry", "entries"), units::bytes(bytes))
    };
    let exported = room.export_with_progress(out, &mut |so_far| {
        spinner.say(format!("exporting: {}", said(so_far.entries, so_far.bytes)));
    });
    drop(spinner);
    if out.is_closed() {
        return Err(Problem::output_closed());
    }
    let report = exported.map_err(|error| Problem::of(&error, file))?;
    out.finish()?;
    if out.is_json() {
        let report = json!({
            "file": shown(file), "entries": report.entries, "bytes": report.bytes, "by_kind": report.by_kind,
        });
        eprintln!("{report}");
    } else if std::io::stderr().is_terminal() {
        eprintln!("{}: {}", shown(file), said(report.entries, report.bytes));
    }
    Ok(Verdict::Fine)
}
