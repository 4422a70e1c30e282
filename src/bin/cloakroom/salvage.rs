//! `cloakroom salvage`: copies what is intact in a damaged file into a new one.

use crate::output::Output;
use crate::paths::{quoted, shown, within};
use crate::problem::{Kind, Problem, Verdict};
use crate::progress::Spinner;
use crate::room;
use crate::units;
use clap::Args;
use cloakroom::Error;
use cloakroom::tools::{Loss, SalvageReport};
use serde_json::json;
use std::path::{Path, PathBuf};

/// The most losses in the text output.
const MAX_SHOWN: usize = 40;

/// Copies everything intact in a damaged file into a new one, and reports what is lost.
///
/// FILE is only read: keep it until you know that nothing in it is needed. The new file is a valid
/// room, verified before it gets its name. Rows of indexes are derived again, so damage to them
/// loses nothing.
///
/// An earlier backup may have what is lost here, but lacks what was written after it. If the disk
/// is faulty, salvage to another one.
#[derive(Debug, Args)]
#[command(after_long_help = help_end!(
    "\
Examples:
  cloakroom salvage edge.cloak edge.salvaged.cloak
  cloakroom salvage --json edge.cloak /elsewhere/edge.cloak | jq 'select(.type == \"loss\")'

Then check what was lost, keep the damaged file under another name, and replace it
by the new one:
  mv edge.cloak edge.damaged.cloak
  mv edge.salvaged.cloak edge.cloak

The exit code is 0 when nothing was lost, 1 when something was; the new file exists
in both cases. With --json there is one object for each loss and each note,
and at the end one of type \"report\".",
    "cloakroom verify, cloakroom backup"
))]
pub struct SalvageOptions {
    /// The damaged file. It is only read.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The new file. It must not exist.
    #[arg(value_name = "TO")]
    to: PathBuf,
}

pub fn run(options: &SalvageOptions, out: &mut Output) -> Result<Verdict, Problem> {
    let SalvageOptions { file, to } = options;
    if !file.exists() {
        return Err(Problem::missing(file));
    }
    room::vacant(to)?;
    let spinner = Spinner::start(format!("salvaging {}", shown(file)));
    let salvaged = cloakroom::tools::salvage(file, to);
    drop(spinner);
    let report = salvaged.map_err(|error| failed(&error, file))?;
    if out.is_json() {
        print_json(&report, options, out)?;
    } else {
        print(&report, options, out)?;
    }
    Ok(if report.is_complete() { Verdict::Fine } else { Verdict::Wrong })
}

/// The problem that an error stands for. It does not name `cloakroom verify`, which suggested this
/// command.
fn failed(error: &Error, file: &Path) -> Problem {
    match error {
        Error::Corrupted { location, detail } => {
            let location = within(location, file);
            let message =
                format!("nothing can be salvaged from {}: {location}: {detail}", shown(file));
            Problem::new(Kind::Damaged, message).advise("restore a backup; no file was created")
        }
        _ => Problem::of(error, file),
    }
}

fn print(
    report: &SalvageReport,
    options: &SalvageOptions,
    out: &mut Output,
) -> Result<(), Problem> {
    let SalvageOptions { file, to } = options;
    let rows = units::counted(report.rows, "row", "rows");
    out.line(&format!("{}: {rows}, {}, verified", shown(to), units::bytes(report.bytes)))?;
    if report.is_complete() {
        out.line(&format!("no loss from {} is known", shown(file)))?;
    } else {
        out.line(&format!("lost from {}:", shown(file)))?;
    }
    for operations in &report.lost_frames {
        out.line(&format!(
            "  operations {} to {} of the log: their effects are lost (a token that one of them consumed can be \
             consumed again)",
            operations.start(),
            operations.end()
        ))?;
    }
    for Loss { location, what, .. } in report.losses.iter().take(MAX_SHOWN) {
        out.line(&format!("  {}: {what}", within(location, file)))?;
    }
    let more = total(report).saturating_sub(MAX_SHOWN as u64);
    if more > 0 {
        out.line(&format!("  and {} more (with --json they are listed)", units::count(more)))?;
    }
    for note in report.notes.iter().take(MAX_SHOWN) {
        out.line(&format!("note: {note}"))?;
    }
    if report.rows == 0 {
        return out.line(&format!("what to do: restore a backup; {} is unchanged", shown(file)));
    }
    out.line(&format!(
        "what to do: {} is unchanged; keep it, and replace it by the new file:",
        shown(file)
    ))?;
    out.line(&format!("  mv {} {}", quoted(file), quoted(&beside(file, "damaged"))))?;
    out.line(&format!("  mv {} {}", quoted(to), quoted(file)))?;
    out.line("to see the content of the new file first")?;
    out.line(&format!("run: {}", look(to)))
}

fn print_json(
    report: &SalvageReport,
    options: &SalvageOptions,
    out: &mut Output,
) -> Result<(), Problem> {
    let SalvageOptions { file, to } = options;
    for operations in &report.lost_frames {
        let range = json!({ "type": "lost_operations", "from": operations.start(), "to": operations.end() });
        out.object(&range)?;
    }
    for Loss { location, what, .. } in &report.losses {
        out.object(&json!({ "type": "loss", "location": within(location, file), "what": what }))?;
    }
    for note in &report.notes {
        out.object(&json!({ "type": "note", "note": note }))?;
    }
    let tables: serde_json::Map<_, _> =
        report.tables.iter().map(|(table, rows)| ((*table).to_owned(), json!(rows))).collect();
    out.object(&json!({
        "type": "report", "file": shown(file), "to": shown(to), "complete": report.is_complete(),
        "losses": total(report), "lost_operations": report.lost_frames.len(), "dropped": report.dropped,
        "damaged_blocks": report.damaged_blocks, "rows": report.rows, "bytes": report.bytes, "tables": tables,
        "run": look(to),
    }))
}

fn total(report: &SalvageReport) -> u64 {
    report.losses.len() as u64 + report.more_losses
}

/// The command line that shows what is in the new file.
fn look(to: &Path) -> String {
    format!("cloakroom stats {}", quoted(to))
}

/// The command line that salvages `file` into a new file beside it.
pub fn command(file: &Path) -> String {
    format!("cloakroom salvage {} {}", quoted(file), quoted(&beside(file, "salvaged")))
}

/// A free path in the directory of `file`, marked with `what`: `edge.salvaged.cloak` for
/// `edge.cloak`.
fn beside(file: &Path, what: &str) -> PathBuf {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let extension =
        file.extension().map_or("cloak".into(), |extension| extension.to_string_lossy());
    let named = |number: &str| file.with_file_name(format!("{stem}.{what}{number}.{extension}"));
    let is_free = |path: &PathBuf| path.symlink_metadata().is_err();
    let numbered = (2..100).map(|number| named(&format!("-{number}")));
    std::iter::once(named("")).chain(numbered).find(is_free).unwrap_or_else(|| named(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_file_gets_a_free_name_in_the_directory_of_the_damaged_one() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        assert_eq!(beside(&at("edge.cloak"), "salvaged"), at("edge.salvaged.cloak"));
        assert_eq!(beside(&at("edge"), "damaged"), at("edge.damaged.cloak"));
        std::fs::write(at("edge.salvaged.cloak"), "").unwrap();
        assert_eq!(beside(&at("edge.cloak"), "salvaged"), at("edge.salvaged-2.cloak"));
        assert_eq!(
            command(Path::new("my edge.cloak")),
            "cloakroom salvage 'my edge.cloak' 'my edge.salvaged.cloak'"
        );
    }
}
