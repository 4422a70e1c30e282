//! Durable one-shot consumes, compared: the disk alone, a loop that only shares flushes,
//! cloakroom, and other engines, all on the same disk in the same run. See README.md beside this
//! package.

mod bare;
mod contest;
mod disk;
mod engines;
mod group;
mod slow_file;
mod table;
mod tokens;

use crate::bare::{Bare, Wake};
use crate::contest::{Contender, Measured};
use crate::disk::{Device, Flush};
use crate::engines::canopy::Canopy;
use crate::engines::cloakroom::Room;
use crate::engines::fjall::Fjall;
use crate::engines::lmdb::Lmdb;
use crate::engines::redb::Redb;
use crate::engines::redis::{self, Redis};
use crate::engines::sqlite::Sqlite;
use crate::engines::{Alone, Store};
use crate::group::Grouped;
use crate::table::Table;
use crate::tokens::Tokens;
use anyhow::{Context, Result, ensure};
use clap::Parser;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Compare durable one-shot consumes on this disk. The table goes to standard output, progress to
/// standard error.
#[derive(Debug, Parser)]
struct Options {
    /// Tokens handed in before the clock starts; a cell ends early when all are consumed.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..))]
    tokens: u32,
    /// Seconds per cell.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Rounds; the table shows medians. Each round visits every cell once.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// A directory on the disk to measure. Everything is written to a new directory inside, which
    /// is deleted.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Only contenders whose name begins with one of these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// How many callers consume at once, each waiting for its answer before the next.
    #[arg(long, value_delimiter = ',', default_value = "1,8,64,256")]
    threads: Vec<usize>,
    /// Simulate a slower disk: every flush takes this much longer, of the raw disk, the bare loops
    /// and cloakroom alike (the other engines cannot be slowed down and are left out). With a --dir
    /// in memory this is the whole flush.
    #[arg(long, default_value_t = 0)]
    flush_delay_us: u64,
    /// List the contenders and stop.
    #[arg(long)]
    list: bool,
}

/// How a contender is called in one cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// That many threads, each with one consume at a time.
    Blocking(usize),
    /// Threads that each have many consumes in flight.
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

/// What a contender is created from.
struct Setup<'a> {
    dir: &'a Path,
    tokens: &'a Arc<Tokens>,
    load: Load,
    /// How much longer a flush takes than the disk needs.
    flush_delay: Duration,
}

type Create = fn(&Setup<'_>) -> Result<Box<dyn Contender>>;

/// What a row of the table measures.
enum Kind {
    /// The disk alone, by one thread.
    Raw(Flush),
    /// Something with callers. `pipelines` when a caller may have several consumes in flight.
    Callers { create: Create, pipelines: bool },
}

struct Row {
    name: &'static str,
    title: &'static str,
    kind: Kind,
}

fn rows() -> Vec<Row> {
    fn row(name: &'static str, title: &'static str, create: Create) -> Row {
        Row { name, title, kind: Kind::Callers { create, pipelines: false } }
    }
    fn pipelining(name: &'static str, title: &'static str, create: Create) -> Row {
        Row { name, title, kind: Kind::Callers { create, pipelines: true } }
    }
    fn bare(setup: &Setup<'_>, wake: Wake) -> Result<Box<dyn Contender>> {
        Ok(Box::new(Bare::create(setup.dir, setup.tokens, wake, setup.flush_delay, setup.load.depth())?))
    }
    fn alone(store: Result<impl Store + 'static>) -> Result<Box<dyn Contender>> {
        Ok(Box::new(Alone(store?)))
    }
    fn grouped(store: Result<impl Store + 'static>) -> Result<Box<dyn Contender>> {
        Ok(Box::new(Grouped::new(store?)?))
    }
    vec![
        Row {
            name: "raw-fdatasync",
            title: "raw 4 KiB overwrite + `fdatasync`",
            kind: Kind::Raw(Flush::Fdatasync),
        },
        Row { name: "raw-dsync", title: "raw 4 KiB overwrite, `RWF_DSYNC`", kind: Kind::Raw(Flush::Dsync) },
        pipelining("bare-condvar", "bare loop: condition variable", |setup| bare(setup, Wake::Condvar)),
        pipelining("bare-futex", "bare loop: one wake-up per group", |setup| bare(setup, Wake::Futex)),
        pipelining("bare-delay", "bare loop: the same, delaying", |setup| {
            bare(setup, Wake::FutexDelaying)
        }),
        pipelining("cloakroom", "**cloakroom**", |setup| {
            let depth = setup.load.depth();
            Ok(Box::new(Room::create(setup.dir, setup.tokens, depth, setup.flush_delay)?))
        }),
        row("sqlite-shared", "SQLite, one connection behind a mutex", |s| {
            alone(Sqlite::create(s.dir, s.tokens, false))
        }),
        row("sqlite-each", "SQLite, a connection per thread", |s| {
            alone(Sqlite::create(s.dir, s.tokens, true))
        }),
        row("redb", "redb", |s| alone(Redb::create(s.dir, s.tokens))),
        row("fjall", "fjall", |s| alone(Fjall::create(s.dir, s.tokens))),
        row("lmdb", "LMDB", |s| alone(Lmdb::create(s.dir, s.tokens))),
        row("canopydb", "canopydb", |s| alone(Canopy::create(s.dir, s.tokens))),
        row("redis", "Redis over loopback", |s| alone(Redis::create(s.dir, s.tokens))),
        row("group-sqlite", "SQLite behind a group-commit thread", |s| {
            grouped(Sqlite::create(s.dir, s.tokens, false))
        }),
        row("group-redb", "redb, likewise", |s| grouped(Redb::create(s.dir, s.tokens))),
        row("group-fjall", "fjall, likewise", |s| grouped(Fjall::create(s.dir, s.tokens))),
        row("group-lmdb", "LMDB, likewise", |s| grouped(Lmdb::create(s.dir, s.tokens))),
        row("group-canopydb", "canopydb, likewise", |s| grouped(Canopy::create(s.dir, s.tokens))),
        row("group-redis", "Redis, likewise", |s| grouped(Redis::create(s.dir, s.tokens))),
    ]
}

fn main() -> ExitCode {
    match compare(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn compare(options: &Options) -> Result<()> {
    let wanted = |row: &Row| {
        let slowed = ["raw", "bare", "cloakroom"].iter().any(|name| row.name.starts_with(name));
        (options.only.is_empty() || options.only.iter().any(|name| row.name.starts_with(name.as_str())))
            && (options.flush_delay_us == 0 || slowed)
    };
    let mut rows: Vec<Row> = rows().into_iter().filter(wanted).collect();
    if !options.list && !redis::is_installed() {
        let before = rows.len();
        rows.retain(|row| !row.name.ends_with("redis"));
        if rows.len() < before {
            eprintln!("there is no redis-server on the PATH: Redis is left out");
        }
    }
    ensure!(!rows.is_empty(), "no contender is called that; --list shows them");
    if options.list {
        rows.iter().for_each(|row| println!("{:<16} {}", row.name, row.title));
        return Ok(());
    }
    ensure!(options.seconds > 0.0 && options.seconds <= 3600.0, "--seconds must be above 0 and at most 3600");
    ensure!(options.rounds > 0, "--rounds must be at least 1");
    ensure!(options.threads.iter().all(|&threads| threads > 0), "--threads must be at least 1 each");
    let span = Duration::from_secs_f64(options.seconds);
    let flush_delay = Duration::from_micros(options.flush_delay_us);
    let scratch = Scratch::new(&options.dir)?;
    let tokens = Arc::new(Tokens::new(options.tokens as usize));
    let mut loads: Vec<Load> = options.threads.iter().map(|&threads| Load::Blocking(threads)).collect();
    loads.push(PIPELINED);
    let mut table = Table::new(rows.iter().map(|row| (row.name, row.title)), &loads);
    for round in 1..=options.rounds {
        for (column, &load) in loads.iter().enumerate() {
            for (number, row) in rows.iter().enumerate() {
                let dir = scratch.cell()?;
                let setup = Setup { dir: &dir, tokens: &tokens, load, flush_delay };
                let Some(measured) = measure(row, &setup, column == 0, span)
                    .with_context(|| format!("{} with {load:?}", row.name))?
                else {
                    continue;
                };
                let (ops, per_flush) = (measured.ops_per_second, measured.ops_per_raw_flush);
                eprintln!(
                    "round {round}/{} {load:?} {:<16} {ops:>9.0} /s {per_flush:>8.2} per raw flush",
                    options.rounds, row.name
                );
                table.add(number, column, measured);
            }
        }
    }
    print!("{}", table.render(options.rounds, options.tokens));
    Ok(())
}

/// Measures one cell in an empty directory; `None` when the row has none in this column.
fn measure(row: &Row, setup: &Setup<'_>, first_column: bool, span: Duration) -> Result<Option<Measured>> {
    let Setup { dir, tokens, load, flush_delay } = *setup;
    match row.kind {
        Kind::Raw(flush) if first_column => {
            disk::settle(dir)?;
            let ops_per_second = disk::raw_flushes(dir, flush, flush_delay, span)?;
            Ok(Some(Measured { ops_per_second, ops_per_raw_flush: 1.0, bytes_per_op: None }))
        }
        Kind::Callers { create, pipelines } if pipelines || load.depth() == 1 => {
            let contender = create(setup)?;
            disk::settle(dir)?;
            let device = Device::of(dir);
            let flushes_before = disk::raw_flushes(dir, Flush::Dsync, flush_delay, YARDSTICK)?;
            let measured = contest::run(contender, tokens, load.threads(), span, &device)?;
            let flushes_after = disk::raw_flushes(dir, Flush::Dsync, flush_delay, YARDSTICK)?;
            let flushes = f64::midpoint(flushes_before, flushes_after);
            Ok(Some(Measured { ops_per_raw_flush: measured.ops_per_second / flushes, ..measured }))
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
