//! Durable one-shot consumes, compared: the disk alone, a loop that only shares flushes,
//! cloakroom, and other engines, all on the same disk in the same run. See README.md beside this
//! package.

mod bare;
mod chart;
mod contest;
mod cost;
mod disk;
mod engines;
mod group;
mod reads;
mod record;
mod rows;
mod slow_file;
mod table;
mod tokens;
mod work;

use crate::contest::{Measured, Plan};
use crate::cost::Meter;
use crate::disk::Flush;
use crate::engines::redis;
use crate::record::{Found, Record};
use crate::rows::{Kind, Row, Setup, rows};
use crate::tokens::{Tokens, now};
use crate::work::Work;
use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Compare durable one-shot consumes on this disk. The tables go to standard output, progress to
/// standard error.
#[derive(Debug, Parser)]
struct Options {
    /// What to measure.
    #[arg(long, value_enum, default_value_t = Work::Consume)]
    work: Work,
    /// Measure reads of one row instead, alone and beside a writer, of cloakroom and of redb.
    #[arg(long, conflicts_with_all = ["work", "json", "chart", "from", "threads"])]
    reads: bool,
    /// For the consume: tokens stored before the clock starts; a cell ends early when all are
    /// consumed.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..))]
    tokens: u32,
    /// For the lifecycle: how many tokens live in a cell; it ends early when all have.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..))]
    lives: u32,
    /// For the lifecycle: after how many seconds a token ends.
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    life: u64,
    /// Seconds per cell.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Seconds of rest after each cell, so that what engines put off is counted as well. Without
    /// it 0 for the consume and 10 for the lifecycle.
    #[arg(long, value_name = "SECONDS")]
    settle: Option<f64>,
    /// Rounds; the tables show medians. Each round visits every cell once.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// A directory on the disk to measure. Everything is written to a new directory inside, which
    /// is deleted.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Only contenders whose name begins with one of these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// How many callers work at once, each waiting for its answer before the next.
    #[arg(long, value_delimiter = ',', default_value = "1,8,64,256")]
    threads: Vec<usize>,
    /// Simulate a slower disk: every flush takes this much longer, of the raw disk, the bare loops
    /// and cloakroom alike (the other engines cannot be slowed down and are left out). With a --dir
    /// in memory this is the whole flush.
    #[arg(long, default_value_t = 0)]
    flush_delay_us: u64,
    /// Write everything that was measured to this file, after every round.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw operations a second over callers to this file, as SVG.
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    /// Measure nothing: take what an earlier run wrote with --json.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    from: Option<PathBuf>,
    /// List the contenders and stop.
    #[arg(long)]
    list: bool,
}

/// How a contender is called in one cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Load {
    /// That many threads, each with one request at a time.
    Blocking(usize),
    /// Threads that each have many requests in flight.
    Pipelined { threads: usize, depth: usize },
}

/// How long the raw flush is measured before and after every cell.
const YARDSTICK: Duration = Duration::from_millis(150);

/// The one pipelined load.
const PIPELINED: Load = Load::Pipelined { threads: 2, depth: 1024 };

impl Load {
    fn threads(self) -> usize {
        match self {
            Load::Blocking(threads) | Load::Pipelined { threads, .. } => threads,
        }
    }

    fn depth(self) -> usize {
        match self {
            Load::Blocking(_) => 1,
            Load::Pipelined { depth, .. } => depth,
        }
    }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    if options.list {
        rows().iter().for_each(|row| println!("{:<20} {}", row.name, row.title));
        return Ok(());
    }
    if options.reads {
        print!("{}", read(options)?);
        return Ok(());
    }
    let record = match &options.from {
        Some(path) => Record::read(path)?,
        None => compare(options)?,
    };
    print!("{}", table::render(&record));
    if let Some(path) = &options.chart {
        std::fs::write(path, chart::draw(&record)?).context("writing the chart")?;
    }
    Ok(())
}

/// The table of the reads.
fn read(options: &Options) -> Result<String> {
    let scratch = Scratch::new(&options.dir)?;
    let plan = reads::Plan {
        rows: options.tokens,
        span: Duration::from_secs_f64(options.seconds),
        rounds: options.rounds.max(1),
        only: &options.only,
        dir: &|| scratch.cell(),
    };
    reads::compare(&plan)
}

/// The contenders that were asked for and can be measured here.
fn wanted(options: &Options) -> Result<Vec<Row>> {
    let is_wanted = |row: &Row| {
        let slowed = ["raw", "bare", "cloakroom"].iter().any(|name| row.name.starts_with(name));
        (options.only.is_empty()
            || options.only.iter().any(|name| row.name.starts_with(name.as_str())))
            && (options.flush_delay_us == 0 || slowed)
    };
    let mut rows: Vec<Row> = rows().into_iter().filter(is_wanted).collect();
    if rows.iter().any(|row| row.name.ends_with("redis")) && !redis::is_installed() {
        rows.retain(|row| !row.name.ends_with("redis"));
        eprintln!("there is no redis-server on the PATH: Redis is left out");
    }
    ensure!(!rows.is_empty(), "no contender is called that; --list shows them");
    Ok(rows)
}

/// An empty record of the run that was asked for.
fn plan(options: &Options, rows: &[Row]) -> Result<Record> {
    let settle_seconds = options.settle.unwrap_or(match options.work {
        Work::Consume => 0.0,
        Work::Lifecycle => 10.0,
    });
    let is_span = |seconds: f64| (0.0..=3600.0).contains(&seconds);
    ensure!(
        options.seconds > 0.0 && is_span(options.seconds),
        "--seconds must be above 0 and at most 3600"
    );
    ensure!(is_span(settle_seconds), "--settle must be at most 3600");
    ensure!(options.rounds > 0, "--rounds must be at least 1");
    ensure!(options.life > 0, "--life must be at least 1");
    ensure!(
        options.threads.iter().all(|&threads| threads > 0),
        "--threads must be at least 1 each"
    );
    let mut loads: Vec<Load> = options.threads.iter().copied().map(Load::Blocking).collect();
    loads.push(PIPELINED);
    let found = |row: &Row| Found {
        name: row.name.to_owned(),
        title: row.title.to_owned(),
        cells: vec![Vec::new(); loads.len()],
    };
    Ok(Record {
        began_at: now(),
        processors: std::thread::available_parallelism().map_or(0, usize::from),
        work: options.work,
        tokens: if options.work == Work::Consume { options.tokens } else { options.lives },
        rounds: 0,
        seconds: options.seconds,
        settle_seconds,
        life_seconds: options.life,
        flush_delay_us: options.flush_delay_us,
        rows: rows.iter().map(found).collect(),
        loads,
    })
}

fn compare(options: &Options) -> Result<Record> {
    let rows = wanted(options)?;
    let mut record = plan(options, &rows)?;
    let scratch = Scratch::new(&options.dir)?;
    let tokens = Arc::new(Tokens::new(record.tokens as usize, record.work, record.life_seconds));
    let flush_delay = Duration::from_micros(options.flush_delay_us);
    let (span, settle) = (record.seconds, record.settle_seconds);
    for round in 1..=options.rounds {
        for (column, &load) in record.loads.iter().enumerate() {
            let plan = Plan {
                threads: load.threads(),
                span: Duration::from_secs_f64(span),
                settle: Duration::from_secs_f64(settle),
            };
            for (row, found) in rows.iter().zip(&mut record.rows) {
                let dir = scratch.cell()?;
                let setup = Setup { dir: &dir, tokens: &tokens, load, flush_delay };
                let Some(measured) = measure(row, &setup, column == 0, plan)
                    .with_context(|| format!("{} with {load:?}", row.name))?
                else {
                    continue;
                };
                eprintln!(
                    "round {round}/{} {load:?} {:<18} {:>9.0} /s {:>8.2} per raw flush {:>8.1} us",
                    options.rounds,
                    row.name,
                    measured.ops_per_second,
                    measured.ops_per_raw_flush,
                    measured.cost.processor_us
                );
                found.cells[column].push(measured);
            }
        }
        // A later round that fails does not take the earlier ones with it.
        record.rounds = round;
        if let Some(path) = &options.json {
            record.write(path)?;
        }
    }
    Ok(record)
}

/// Measures one cell in an empty directory; `None` when the row has none in this column.
fn measure(
    row: &Row,
    setup: &Setup<'_>,
    first_column: bool,
    plan: Plan,
) -> Result<Option<Measured>> {
    let Setup { dir, tokens, load, flush_delay } = *setup;
    match row.kind {
        Kind::Raw(flush) if first_column => {
            disk::settle(dir)?;
            let (meter, file) = (Meter::new(dir, None), disk::raw_file(dir)?);
            let before = meter.read();
            let (flushes, per_second) = disk::raw_flushes(&file, flush, flush_delay, plan.span)?;
            let cost = meter.read().since(before, flushes);
            let (ops_per_second, ops_per_raw_flush) = (per_second, 1.0);
            Ok(Some(Measured { ops_per_second, ops_per_raw_flush, cost, settled: None }))
        }
        Kind::Callers { create, pipelines } if pipelines || load.depth() == 1 => {
            let contender = create(setup)?;
            disk::settle(dir)?;
            let yardstick = || -> Result<f64> {
                let file = disk::raw_file(dir)?;
                Ok(disk::raw_flushes(&file, Flush::Dsync, flush_delay, YARDSTICK)?.1)
            };
            let flushes_before = yardstick()?;
            let measured = contest::run(contender, tokens, plan, dir)?;
            let flushes = f64::midpoint(flushes_before, yardstick()?);
            let ops_per_raw_flush = measured.ops_per_second / flushes;
            Ok(Some(Measured { ops_per_raw_flush, ..measured }))
        }
        _ => Ok(None),
    }
}

/// A directory that is deleted with everything in it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path) -> Result<Self> {
        let path = parent.join(format!(".compare-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self(path))
    }

    /// An empty directory for one cell; the one before is deleted.
    fn cell(&self) -> Result<PathBuf> {
        let path = self.0.join("cell");
        if path.exists() {
            std::fs::remove_dir_all(&path)?;
        }
        std::fs::create_dir(&path)?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
