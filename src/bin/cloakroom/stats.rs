//! `cloakroom stats`: the content of a room in figures.

use crate::output::Output;
use crate::paths::shown;
use crate::problem::{Problem, Verdict};
use crate::progress::Spinner;
use crate::room;
use crate::units;
use clap::Args;
use cloakroom::stats::{RoomStats, StoreStats};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Shows what is in a room: entries, rows and bytes of each store, and the length of the file.
///
/// FILE is only read. Counting reads every row once, so it takes as long as reading the file. It
/// does not check the file: `cloakroom verify` does.
///
/// A program that has the room open can show more: room.stats() also has the flushes, stalls and
/// checkpoints since it was opened.
#[derive(Debug, Args)]
#[command(after_long_help = help_end!(
    "\
Examples:
  cloakroom stats edge.cloak
  cloakroom stats --json edge.cloak | jq .engine.file_bytes

Columns:
  live     entries that have not expired
  taken    those of them that are consumed, claimed or pending
  expired  entries that have expired and wait for the sweeper
  rows     rows of all tables, with those of indexes
  bytes    bytes of the keys and values of these rows",
    "cloakroom dump (the rows themselves), cloakroom verify, cloakroom sweep"
))]
pub struct StatsOptions {
    /// The room. It is only read.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub fn run(options: &StatsOptions, out: &mut Output) -> Result<Verdict, Problem> {
    let file = &options.file;
    let room = room::read_only(file)?;
    let spinner = Spinner::start(format!("counting the rows of {}", shown(file)));
    let stats = room.stats();
    drop(spinner);
    let stats = stats.map_err(|error| Problem::of(&error, file))?;
    if out.is_json() {
        out.object(&json!({
            "file": shown(file), "engine": stats.engine, "sweep_backlog": stats.sweep_backlog,
            "stores": stats.stores,
        }))?;
    } else {
        print(file, &stats, out)?;
    }
    Ok(Verdict::Fine)
}

fn print(file: &Path, stats: &RoomStats, out: &mut Output) -> Result<(), Problem> {
    let RoomStats { engine, stores, sweep_backlog, .. } = stats;
    let free = engine
        .btree_free_bytes
        .map_or_else(String::new, |free| format!(", {} of it free", units::bytes(free)));
    let sum = |figure: fn(&StoreStats) -> u64| stores.iter().map(figure).sum::<u64>();
    let in_log = units::counted(engine.memory_rows, "row", "rows");
    out.lines(units::pairs(&[
        ("file", shown(file)),
        ("length", units::bytes(engine.file_bytes)),
        ("B-tree", format!("{}{free}", units::bytes(engine.btree_bytes))),
        ("newest transaction", units::count(engine.newest_lsn)),
        (
            "only in the log",
            format!("{in_log}, since transaction {}", units::count(engine.checkpoint_lsn)),
        ),
        ("due to be swept", units::counted(*sweep_backlog, "index row", "index rows")),
    ]))?;
    out.line("")?;
    let mut table =
        vec![["store", "live", "taken", "expired", "rows", "bytes"].map(str::to_owned).to_vec()];
    table.extend(stores.iter().map(|store| {
        let figures = [store.live, store.taken, store.expired, store.rows].map(units::count);
        let name = match &store.name {
            Some(name) => format!("{} {name:?}", store.store),
            None => store.store.to_string(),
        };
        [vec![name], figures.to_vec(), vec![units::bytes(store.bytes)]].concat()
    }));
    let sums = [
        sum(|store| store.live),
        sum(|store| store.taken),
        sum(|store| store.expired),
        sum(|store| store.rows),
    ];
    let bytes = units::bytes(sum(|store| store.bytes));
    table
        .push([vec!["together".to_owned()], sums.map(units::count).to_vec(), vec![bytes]].concat());
    out.lines(units::table(&table))
}
