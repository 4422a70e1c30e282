//! `cloakroom stats`: what is in a room.

use crate::output::{Output, shown};
use crate::problem::{Problem, Verdict};
use crate::room;
use crate::units;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Shows what is in a room: rows and bytes of each store, the length of the file, and how far the log is.
///
/// FILE is only read. Counting reads every row once, so it takes as long as reading the file does. What nobody has
/// read is not checked: `cloakroom verify` does that.
///
/// A program that has the room open shows more: room.stats() also has the flushes, stalls and checkpoints since it was
/// opened.
#[derive(Debug, Args)]
#[command(after_long_help = help_end!(
    "\
Examples:
  cloakroom stats edge.cloak
  cloakroom stats --json edge.cloak | jq .engine.file_bytes",
    "cloakroom dump (the rows themselves), cloakroom verify"
))]
pub struct Options {
    /// The room. It is only read.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub fn run(options: &Options, out: &mut Output) -> Result<Verdict, Problem> {
    let file = &options.file;
    let room = room::read_only(file)?;
    let stats = room.stats().map_err(|error| Problem::of(&error, file))?;
    if out.is_json() {
        out.object(
            &json!({ "file": shown(file), "newest_lsn": stats.newest_lsn, "file_bytes": stats.file_bytes }),
        )?;
    } else {
        out.lines(units::pairs(&[("file", shown(file)), ("length", units::bytes(stats.file_bytes))]))?;
    }
    Ok(Verdict::Fine)
}
