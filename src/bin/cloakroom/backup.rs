//! `cloakroom backup`: a verified copy of a room.

use crate::output::Output;
use crate::paths::shown;
use crate::problem::{Kind, Problem, Verdict};
use crate::progress;
use crate::room;
use crate::units;
use clap::Args;
use cloakroom::Error;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Copies a room into a new file, verified and atomically.
///
/// The copy has one consistent state of FILE, is read back and compared before it gets its name,
/// and is a room like any other: to restore it, copy it to the path of the room. FILE is only read.
/// If FILE was left by a crash, the copy is recovered. Damage is reported and never copied.
///
/// When TO is an earlier backup of the same room it is replaced atomically. Anything else at TO is
/// not changed.
///
/// A program that has the room open makes backups itself while it writes: room.backup(path).
#[derive(Debug, Args)]
#[command(after_long_help = help_end!(
    "\
Examples:
  cloakroom backup edge.cloak /backups/edge.cloak
  cloakroom backup --json edge.cloak \"edge-$(date +%F).cloak\"

After an exit code other than 0 the file at TO is unchanged.",
    "cloakroom verify, cloakroom export, cloakroom salvage (for a damaged FILE)"
))]
pub struct BackupOptions {
    /// The room. It is only read.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The new file, or an earlier backup of the same room, which is replaced.
    #[arg(value_name = "TO")]
    to: PathBuf,
}

pub fn run(options: &BackupOptions, out: &mut Output) -> Result<Verdict, Problem> {
    let BackupOptions { file, to } = options;
    let room = room::read_only(file)?;
    let bar = progress::bar(0, "copying");
    let report = room.backup_with_progress(to, &mut |done, of| {
        bar.set_length(of);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let report = report.map_err(|error| failed(&error, file, to))?;
    if out.is_json() {
        out.object(&json!({
            "file": shown(file), "to": shown(to), "lsn": report.lsn, "rows": report.rows, "bytes": report.bytes,
        }))?;
    } else {
        let (rows, bytes) =
            (units::counted(report.rows, "row", "rows"), units::bytes(report.bytes));
        out.line(&format!(
            "{}: {rows}, {bytes}, verified; the state of {} at LSN {}",
            shown(to),
            shown(file),
            report.lsn
        ))?;
    }
    Ok(Verdict::Fine)
}

/// The problem that an error stands for. It may concern either file.
fn failed(error: &Error, file: &Path, to: &Path) -> Problem {
    match error {
        Error::DifferentRoom { .. } => Problem::new(Kind::Exists, error.to_string())
            .advise("choose a path that does not exist yet, or an earlier backup of this room"),
        // The file at TO prevents the backup; nothing is wrong with the room.
        Error::NotCloakroom { path, .. } | Error::UnsupportedVersion { path, .. } if path == to => {
            Problem::exists(to)
        }
        Error::Corrupted { location, .. } if location.starts_with(&shown(to)) => {
            Problem::exists(to)
        }
        _ => Problem::of(error, file),
    }
}
