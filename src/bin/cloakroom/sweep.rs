//! `cloakroom sweep`: removes what has expired.

use crate::output::{Output, shown};
use crate::problem::{Problem, Verdict};
use crate::progress::Spinner;
use crate::room;
use crate::units;
use clap::Args;
use cloakroom::maintenance::SweepReport;
use serde_json::json;
use std::path::PathBuf;

/// Removes everything that has expired from a room, by the clock of this machine.
///
/// What is removed was absent to every answer before, so no program sees a difference. A program
/// that has the room open sweeps by itself, in the background; this is for a file that nobody has
/// opened for long.
///
/// FILE is written to. Opening it for writing also settles what a crash left in it. Its length does
/// not change by itself: `cloakroom compact` gives the space back.
#[derive(Debug, Args)]
#[command(after_long_help = help_end!(
    "\
Examples:
  cloakroom sweep edge.cloak
  cloakroom sweep edge.cloak && cloakroom compact edge.cloak",
    "cloakroom compact, cloakroom stats (how much has expired)"
))]
pub struct Options {
    /// The room. It is written to.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub fn run(options: &Options, out: &mut Output) -> Result<Verdict, Problem> {
    let file = &options.file;
    let room = room::writable(file)?;
    let spinner = Spinner::start(format!("sweeping {}", shown(file)));
    let swept = room.sweep().and_then(|report| room.close().map(|()| report));
    drop(spinner);
    let report = swept.map_err(|error| Problem::of(&error, file))?;
    let stores = by_store(&report);
    if out.is_json() {
        let removed: serde_json::Map<_, _> = stores
            .iter()
            .map(|(store, _, removed)| ((*store).to_owned(), json!(removed)))
            .collect();
        out.object(&json!({
            "file": shown(file), "total": report.total(), "removed": removed, "rescheduled": report.rescheduled,
            "stepped_over": report.stepped_over,
        }))?;
        return Ok(Verdict::Fine);
    }
    let total = units::counted(report.total(), "expired entry", "expired entries");
    out.line(&format!("{}: {total} removed", shown(file)))?;
    let removed = stores.iter().filter(|(_, _, removed)| *removed > 0);
    let removed: Vec<_> = removed
        .map(|(_, words, removed)| vec![format!("  {words}"), units::count(*removed)])
        .collect();
    out.lines(units::table(&removed))?;
    if report.stepped_over > 0 {
        let rows =
            units::counted(report.stepped_over, "row that was due was", "rows that were due were");
        out.line(&format!("{rows} left: damaged"))?;
    }
    Ok(Verdict::Fine)
}

/// What was removed of each store: its name for programs, in words, and how many entries.
fn by_store(report: &SweepReport) -> [(&'static str, &'static str, u64); 8] {
    [
        ("form_tokens", "form tokens", report.form_tokens),
        ("handoff", "handoff states", report.handoff),
        ("cache", "cached values", report.cache),
        ("dedupe", "jobs", report.dedupe),
        ("rate_limit", "windows of rate limits", report.rate_limit),
        ("adaptive_rate_limit", "windows of adaptive rate limits", report.adaptive_rate_limit),
        ("cooldowns", "cooldowns", report.cooldowns),
        ("codlet", "codes, sessions and failures of codlet", report.codlet),
    ]
}
