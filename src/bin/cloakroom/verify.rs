//! `cloakroom verify`: checks whether a file contains what was written to it.

use crate::output::Output;
use crate::paths::{quoted, shown, within};
use crate::problem::{Problem, Verdict};
use crate::progress::Spinner;
use crate::salvage;
use crate::units;
use clap::Args;
use cloakroom::tools::{Finding, VerifyReport};
use serde_json::json;
use std::path::{Path, PathBuf};

/// The most findings in the text output.
const MAX_SHOWN: usize = 40;

/// Checks everything in a file: every checksum, every row, and that the tables agree with one
/// another.
///
/// It continues after damage, so it reports everything that is wrong, where, and what to do about
/// it, also for a file that can no longer be opened. FILE is only read, all of it, once.
///
/// A finding is something wrong. A note is not: for example what a crash left, which the next
/// opening for writing recovers.
#[derive(Debug, Args)]
#[command(after_long_help = help_end!(
    "\
Examples:
  cloakroom verify edge.cloak
  cloakroom verify --json edge.cloak | jq 'select(.type == \"finding\")'
  cloakroom verify edge.cloak || mail -s 'edge.cloak is damaged' root

With --json there is one object for each finding and each note, and at the end one
of type \"report\" with all figures.",
    "cloakroom salvage (copies what is intact), cloakroom backup"
))]
pub struct VerifyOptions {
    /// The file. It is only read.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub fn run(options: &VerifyOptions, out: &mut Output) -> Result<Verdict, Problem> {
    let file = &options.file;
    let spinner = Spinner::start(format!("verifying {}", shown(file)));
    let report = cloakroom::tools::verify(file);
    drop(spinner);
    let report = report.map_err(|error| Problem::of(&error, file))?;
    let next = next_command(&report, file);
    if out.is_json() {
        print_json(&report, file, next.as_deref(), out)?;
    } else {
        print(&report, file, next.as_deref(), out)?;
    }
    Ok(if report.is_ok() { Verdict::Fine } else { Verdict::Wrong })
}

/// What to run when something is wrong.
fn next_command(report: &VerifyReport, file: &Path) -> Option<String> {
    if report.is_ok() {
        return None;
    }
    if report.findings.iter().any(|finding| finding.advice.contains("salvage")) {
        return Some(salvage::command(file));
    }
    // Opening the file for writing repairs the rest.
    Some(format!("cloakroom sweep {}", quoted(file)))
}

fn print(
    report: &VerifyReport,
    file: &Path,
    next: Option<&str>,
    out: &mut Output,
) -> Result<(), Problem> {
    let found = total(report);
    match found {
        0 => out.line(&format!("{} is sound", shown(file)))?,
        _ => out.line(&format!(
            "{} is damaged: {}",
            shown(file),
            units::counted(found, "finding", "findings")
        ))?,
    }
    for Finding { location, problem, .. } in report.findings.iter().take(MAX_SHOWN) {
        let location = within(location, file);
        out.line(&format!("  {location}: {problem}"))?;
    }
    let more = found.saturating_sub(MAX_SHOWN as u64);
    if more > 0 {
        out.line(&format!("  and {} more (with --json they are listed)", units::count(more)))?;
    }
    for note in report.notes.iter().take(MAX_SHOWN) {
        out.line(&format!("note: {note}"))?;
    }
    out.line(&format!(
        "checked {}, {} and {} of the log",
        units::counted(report.rows, "row", "rows"),
        units::counted(report.blocks, "block", "blocks"),
        units::counted(report.frames, "frame", "frames"),
    ))?;
    let mut advice: Vec<&str> =
        report.findings.iter().map(|finding| finding.advice.as_str()).collect();
    advice.sort_unstable();
    advice.dedup();
    for advice in advice {
        out.line(&format!("what to do: {advice}"))?;
    }
    next.map_or(Ok(()), |next| out.line(&format!("run: {next}")))
}

fn print_json(
    report: &VerifyReport,
    file: &Path,
    next: Option<&str>,
    out: &mut Output,
) -> Result<(), Problem> {
    for Finding { location, problem, advice, .. } in &report.findings {
        let location = within(location, file);
        out.object(
            &json!({ "type": "finding", "location": location, "problem": problem, "advice": advice }),
        )?;
    }
    for note in &report.notes {
        out.object(&json!({ "type": "note", "note": note }))?;
    }
    let tables: serde_json::Map<_, _> =
        report.tables.iter().map(|(table, rows)| ((*table).to_owned(), json!(rows))).collect();
    out.object(&json!({
        "type": "report", "file": shown(file), "ok": report.is_ok(), "findings": total(report),
        "notes": report.notes.len(), "rows": report.rows, "blocks": report.blocks, "frames": report.frames,
        "tables": tables, "run": next,
    }))
}

fn total(report: &VerifyReport) -> u64 {
    report.findings.len() as u64 + report.more_findings
}
