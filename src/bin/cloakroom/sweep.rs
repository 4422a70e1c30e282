//! `cloakroom sweep`: removes what has expired.

use crate::output::Output;
use crate::paths::shown;
use crate::problem::{Problem, Verdict};
use crate::progress::Spinner;
use crate::room;
use crate::units;
use clap::Args;
use cloakroom::Cloakroom;
use cloakroom::stats::StoreKind;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

/// Removes everything that has expired from a room, by the clock of this machine.
///
/// The clock must be right. A program that opens a room after a restart of the machine waits for
/// ten minutes before it removes what ended while the room was closed, in case the clock is wrong.
/// This command does not wait.
///
/// Expired entries are already absent from every answer, so no program sees a difference. A program
/// that has the room open sweeps in the background; this command is for a file that has not been
/// open for a long time.
///
/// FILE is written to. Opening it for writing also recovers it after a crash. Closing it returns
/// very much free space to the filesystem, and `cloakroom compact` returns the rest.
#[derive(Debug, Args)]
#[command(after_long_help = help_end!(
    "\
Examples:
  cloakroom sweep edge.cloak
  cloakroom sweep edge.cloak && cloakroom compact edge.cloak",
    "cloakroom compact, cloakroom stats (how much has expired)"
))]
pub struct SweepOptions {
    /// The room. It is written to.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub fn run(options: &SweepOptions, out: &mut Output) -> Result<Verdict, Problem> {
    let file = &options.file;
    let room = room::writable_as(Cloakroom::builder().leap_hold(Duration::ZERO), file)?;
    let spinner = Spinner::start(format!("sweeping {}", shown(file)));
    let swept = room.sweep().and_then(|report| room.close().map(|()| report));
    drop(spinner);
    let report = swept.map_err(|error| Problem::of(&error, file))?;
    if out.is_json() {
        let removed: serde_json::Map<_, _> = StoreKind::all()
            .iter()
            .map(|store| (store.as_str().to_owned(), json!(report.removed(*store))))
            .collect();
        out.object(&json!({
            "file": shown(file), "total": report.total(), "removed": removed, "rescheduled": report.rescheduled,
            "stepped_over": report.stepped_over,
        }))?;
        return Ok(Verdict::Fine);
    }
    let total = units::counted(report.total(), "expired entry", "expired entries");
    out.line(&format!("{}: {total} removed", shown(file)))?;
    let removed = StoreKind::all().iter().map(|store| (store.entries(), report.removed(*store)));
    let removed: Vec<_> = removed
        .filter(|(_, removed)| *removed > 0)
        .map(|(entries, removed)| vec![format!("  {entries}"), units::count(removed)])
        .collect();
    out.lines(units::table(&removed))?;
    if report.stepped_over > 0 {
        let rows =
            units::counted(report.stepped_over, "row that was due was", "rows that were due were");
        out.line(&format!("{rows} left, because they are damaged"))?;
    }
    Ok(Verdict::Fine)
}
