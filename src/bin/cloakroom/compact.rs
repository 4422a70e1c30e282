//! `cloakroom compact`: returns unused space to the filesystem.

use crate::output::Output;
use crate::paths::shown;
use crate::problem::{Problem, Verdict};
use crate::progress::Spinner;
use crate::room;
use crate::units;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Returns the unused space of a room to the filesystem.
///
/// The content of the room does not change. A program that has the room open compacts by itself
/// when much of the file is unused; this command is for a file that has not been open for a long
/// time. Expired entries use space until they are swept.
///
/// FILE is written to, and never grows. After an interruption, the space returned so far stays
/// returned.
#[derive(Debug, Args)]
#[command(after_long_help = help_end!(
    "\
Examples:
  cloakroom sweep edge.cloak && cloakroom compact edge.cloak",
    "cloakroom sweep, cloakroom stats"
))]
pub struct CompactOptions {
    /// The room. It is written to.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub fn run(options: &CompactOptions, out: &mut Output) -> Result<Verdict, Problem> {
    let file = &options.file;
    let room = room::writable(file)?;
    let spinner = Spinner::start(format!("compacting {}", shown(file)));
    let compacted = room.compact().and_then(|report| room.close().map(|()| report));
    drop(spinner);
    let report = compacted.map_err(|error| Problem::of(&error, file))?;
    let (before, after) = (report.bytes_before, report.bytes_after);
    if out.is_json() {
        out.object(&json!({
            "file": shown(file), "bytes_before": before, "bytes_after": after, "pages_moved": report.pages_moved,
        }))?;
    } else {
        out.line(&format!(
            "{}: {} freed, {} of {} left",
            shown(file),
            units::bytes(before.saturating_sub(after)),
            units::bytes(after),
            units::bytes(before)
        ))?;
    }
    Ok(Verdict::Fine)
}
