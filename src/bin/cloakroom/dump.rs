//! `cloakroom dump`: the rows of a room, readable.

use crate::output::Output;
use crate::paths::quoted;
use crate::problem::{Problem, Verdict};
use crate::progress::Spinner;
use crate::room;
use crate::units;
use clap::Args;
use cloakroom::Cloakroom;
use cloakroom::tools::{DumpRow, TableInfo};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Shows the tables of a room, or the rows of one of them.
///
/// Without TABLE it lists the tables with the number of their rows and bytes. With TABLE it shows
/// every row, in the order of the keys, decoded. A row that cannot be decoded is shown as hex, with
/// what is wrong with it. FILE is only read.
///
/// The rows contain lookup keys, states and values in clear. The names of their fields may change
/// with the format of the file; programs should use an export.
#[derive(Debug, Args)]
#[command(after_long_help = help_end!(
    "\
Examples:
  cloakroom dump edge.cloak
  cloakroom dump edge.cloak handoff | less -S
  cloakroom dump edge.cloak form_token --limit 10
  cloakroom dump --json edge.cloak cache | jq .key",
    "cloakroom stats, cloakroom export, cloakroom verify"
))]
pub struct DumpOptions {
    /// The room. It is only read.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The table. Without it the tables are listed.
    #[arg(value_name = "TABLE")]
    table: Option<String>,
    /// Show at most this many rows.
    #[arg(long, value_name = "N", requires = "table")]
    limit: Option<u64>,
}

pub fn run(options: &DumpOptions, out: &mut Output) -> Result<Verdict, Problem> {
    let room = room::read_only(&options.file)?;
    match &options.table {
        None => list(&room, &options.file, out),
        Some(table) => show(&room, &options.file, table, options.limit, out),
    }
}

fn list(room: &Cloakroom, file: &Path, out: &mut Output) -> Result<Verdict, Problem> {
    let spinner = Spinner::start("counting rows".into());
    let tables = room.tables();
    drop(spinner);
    let tables = tables.map_err(|error| Problem::of(&error, file))?;
    if out.is_json() {
        for table in &tables {
            out.object(&json!({
                "table": table.name, "number": table.number, "is_derived": table.is_derived, "rows": table.rows,
                "bytes": table.bytes,
            }))?;
        }
        return Ok(Verdict::Fine);
    }
    let line = |table: &TableInfo| {
        let name = if table.is_derived {
            format!("{} (index)", table.name)
        } else {
            table.name.to_owned()
        };
        vec![name, units::count(table.rows), units::bytes(table.bytes)]
    };
    let mut rows = vec![["table", "rows", "bytes"].map(str::to_owned).to_vec()];
    rows.extend(tables.iter().map(line));
    out.lines(units::table(&rows))?;
    Ok(Verdict::Fine)
}

fn show(
    room: &Cloakroom,
    file: &Path,
    table: &str,
    limit: Option<u64>,
    out: &mut Output,
) -> Result<Verdict, Problem> {
    let (mut left, mut bad, mut failed) = (limit.unwrap_or(u64::MAX), 0, None);
    let shown = room.dump(table, &mut |row| {
        if left == 0 {
            return false;
        }
        left -= 1;
        bad += u64::from(row.note.is_some());
        let printed =
            if out.is_json() { out.object(&row.to_json()) } else { out.line(&readable(&row)) };
        failed = printed.err();
        failed.is_none() && left > 0
    });
    if let Some(problem) = failed {
        return Err(problem);
    }
    shown.map_err(|error| Problem::of(&error, file))?;
    if bad > 0 {
        out.finish()?;
        let rows = units::counted(bad, "row does", "rows do");
        eprintln!("cloakroom: {rows} not decode\n  run: cloakroom verify {}", quoted(file));
        return Ok(Verdict::Wrong);
    }
    Ok(Verdict::Fine)
}

/// A row as one line: the fields of its key, then those of its value.
fn readable(row: &DumpRow) -> String {
    let mut line = fields(&row.key);
    let value = fields(&row.value);
    if !value.is_empty() {
        line = format!("{line}  ->  {value}");
    }
    match &row.note {
        Some(note) => format!("{line}  ! {note}"),
        None => line,
    }
}

fn fields(object: &Value) -> String {
    match object {
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| format!("{name}={}", word(value)));
            members.collect::<Vec<_>>().join(" ")
        }
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A value. A string has no quotes if it is unambiguous without them.
fn word(value: &Value) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_-./:@+".contains(c);
    match value {
        Value::String(text) if !text.is_empty() && text.chars().all(plain) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_named_and_strings_are_quoted_where_they_must_be() {
        let object = json!({ "id": "order-7", "text": "a b", "empty": "", "n": 7, "none": null, "list": [1, "x"] });
        assert_eq!(fields(&object), r#"empty="" id=order-7 list=[1,"x"] n=7 none=null text="a b""#);
        assert_eq!(fields(&Value::Null), "");
    }
}
