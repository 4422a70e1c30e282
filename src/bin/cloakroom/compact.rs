//! `cloakroom compact`: gives unused space back to the filesystem.

use crate::output::{Output, shown};
use crate::problem::{Problem, Verdict};
use crate::progress::Spinner;
use crate::room;
use crate::units;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Gives the space that a room does not use any more back to the filesystem.
///
/// What is in the room stays as it is. A program that has the room open compacts by itself when
/// much of the file is unused; this is for a file that nobody has opened for long. What has expired
/// is not unused before it is swept.
///
/// FILE is written to, and never grows from it. When it is interrupted, what was given back so far
/// stays given back.
#[derive(Debug, Args)]
#[command(after_long_help = help_end!(
    "\
Examples:
  cloakroom sweep edge.cloak && cloakroom compact edge.cloak",
    "cloakroom sweep, cloakroom stats"
))]
pub struct Options {
    /// The room. It is written to.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub fn run(options: &Options, out: &mut Output) -> Result<Verdict, Problem> {
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
            "{}: {} given back, {} of {} left",
            shown(file),
            units::bytes(before.saturating_sub(after)),
            units::bytes(after),
            units::bytes(before)
        ))?;
    }
    Ok(Verdict::Fine)
}
