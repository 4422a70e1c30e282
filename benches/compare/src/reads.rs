//! Point reads of random rows by one thread: alone, and beside a thread that writes other rows as
//! fast as it can. What counts is the processor time of the reading thread, beside that of redb's
//! bare look-up.

use crate::tokens::{PURPOSE, SUBJECT, Tokens, now, row};
use crate::work::Work;
use ::cloakroom::cache::{Cache, CacheStore, Ttl};
use ::cloakroom::form_token::{
    FormTokenRecord, FormTokenStore, LookupKey, TokenConsumeOutcome, TokenSubject,
};
use ::cloakroom::state::{Identity, StateRecord, StateStore};
use ::cloakroom::{Cloakroom, Pending};
use ::redb::{Database, ReadOnlyTable, ReadableDatabase, TableDefinition};
use anyhow::{Context, Result, anyhow, ensure};
use rustix::time::{ClockId, clock_gettime};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How many writes are in flight, or in one transaction.
const GROUP: usize = 1_024;

/// How many reads redb's kept read transaction serves before it is begun again.
const KEPT_FOR: u32 = 1_000;

/// A year, in seconds: nothing ends.
const LIFE: u64 = 365 * 24 * 60 * 60;

const ROWS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("rows");

/// A store full of rows.
trait Reading: Sync {
    /// Reads the rows of the numbers that it is called with, and fails where one is not there.
    fn reader(&self) -> Result<Box<dyn FnMut(u32) -> Result<()> + '_>>;

    /// Writes rows until it is told to stop, durably, and answers how many.
    fn write(&self, stop: &AtomicBool) -> Result<u64>;
}

/// What is measured, and how.
pub struct Plan<'a> {
    /// How many rows there are.
    pub rows: u32,
    /// How long a cell takes.
    pub span: Duration,
    pub rounds: usize,
    /// Only contenders whose name begins with one of these, and redb's bare look-up. All when there
    /// are none.
    pub only: &'a [String],
    pub dir: &'a dyn Fn() -> Result<std::path::PathBuf>,
}

struct Row {
    name: &'static str,
    title: &'static str,
    create: fn(&Path, &Tokens) -> Result<Box<dyn Reading>>,
}

const CONTENDERS: [Row; 5] = [
    Row { name: "redb", title: "redb, a row", create: |dir, tokens| bare(dir, tokens, KEPT_FOR) },
    Row {
        name: "transaction",
        title: "redb, a transaction and a row",
        create: |dir, tokens| bare(dir, tokens, 1),
    },
    Row {
        name: "cache",
        title: "cloakroom, a cache hit",
        create: |dir, tokens| room(dir, tokens, Hits::fill),
    },
    Row {
        name: "load",
        title: "cloakroom, `load`",
        create: |dir, tokens| room(dir, tokens, States::fill),
    },
    Row {
        name: "peek",
        title: "cloakroom, `peek_form_token`",
        create: |dir, tokens| room(dir, tokens, Peeks::fill),
    },
];

/// What a cell found.
#[derive(Debug, Clone, Copy, Default)]
struct Found {
    /// Microseconds of processor time of the reading thread, for a read.
    processor_us: f64,
    reads_per_second: f64,
    writes_per_second: f64,
}

/// Measures, and answers the table.
pub fn compare(plan: &Plan<'_>) -> Result<String> {
    let tokens = Tokens::new(plan.rows as usize, Work::Consume, LIFE);
    let is_wanted = |row: &&Row| {
        let named = |name: &String| row.name.starts_with(name.as_str());
        plan.only.is_empty() || row.name == "redb" || plan.only.iter().any(named)
    };
    let contenders: Vec<&Row> = CONTENDERS.iter().filter(is_wanted).collect();
    let mut found = vec![[Vec::new(), Vec::new()]; contenders.len()];
    for round in 1..=plan.rounds {
        for (contender, found) in contenders.iter().zip(&mut found) {
            let dir = (plan.dir)()?;
            let store = (contender.create)(&dir, &tokens).context(contender.title)?;
            for (writes, found) in [false, true].into_iter().zip(found) {
                let cell = measure(store.as_ref(), plan, writes).context(contender.title)?;
                eprintln!(
                    "round {round}/{} {:<30} writes: {:>9.0} /s, {:>9.0} reads /s {:>6.2} us",
                    plan.rounds,
                    contender.title,
                    cell.writes_per_second,
                    cell.reads_per_second,
                    cell.processor_us
                );
                found.push(cell);
            }
        }
    }
    Ok(render(plan, &contenders, &found))
}

fn render(plan: &Plan<'_>, contenders: &[&Row], found: &[[Vec<Found>; 2]]) -> String {
    let mut text = format!(
        "Reads of one row of {}, medians of {} interleaved rounds: microseconds of processor time of \
         the reading thread, and the ratio to redb's bare look-up.\n\n\
         | | alone | beside a writer | reads a second | writes a second |\n|---|---:|---:|---:|---:|\n",
        plan.rows, plan.rounds
    );
    let median = |cells: &[Found], of: fn(&Found) -> f64| {
        let mut values: Vec<f64> = cells.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    let bare =
        found.first().map(|cells| [0, 1].map(|at| median(&cells[at], |cell| cell.processor_us)));
    for (contender, cells) in contenders.iter().zip(found) {
        let [alone, beside] = [0, 1].map(|at| {
            let us = median(&cells[at], |cell| cell.processor_us);
            format!("{us:.2} ({:.1})", us / bare.map_or(f64::NAN, |bare| bare[at]))
        });
        let reads = median(&cells[1], |cell| cell.reads_per_second);
        let writes = median(&cells[1], |cell| cell.writes_per_second);
        let _ = writeln!(
            text,
            "| {} | {alone} | {beside} | {reads:.0} | {writes:.0} |",
            contender.title
        );
    }
    text
}

fn measure(store: &dyn Reading, plan: &Plan<'_>, writes: bool) -> Result<Found> {
    let (stop, began) = (AtomicBool::new(!writes), Instant::now());
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| store.write(&stop));
        let read = read(store, plan);
        stop.store(true, Ordering::Relaxed);
        let written = writer.join().map_err(|_| anyhow!("the writer panicked"))??;
        let (reads, processor, elapsed) = read?;
        Ok(Found {
            processor_us: processor.as_secs_f64() * 1e6 / reads as f64,
            reads_per_second: reads as f64 / elapsed.as_secs_f64(),
            writes_per_second: written as f64 / began.elapsed().as_secs_f64(),
        })
    })
}

/// Reads for the span, and answers how often, and what it took.
fn read(store: &dyn Reading, plan: &Plan<'_>) -> Result<(u64, Duration, Duration)> {
    let mut read = store.reader()?;
    let mut random = fastrand::Rng::with_seed(1);
    // What comes first finds an empty cache.
    for _ in 0..plan.rows {
        read(random.u32(0..plan.rows))?;
    }
    let (began, processor, mut reads) = (Instant::now(), processor_time()?, 0);
    while began.elapsed() < plan.span {
        for _ in 0..GROUP {
            read(random.u32(0..plan.rows))?;
        }
        reads += GROUP as u64;
    }
    Ok((reads, processor_time()? - processor, began.elapsed()))
}

/// The processor time of this thread.
fn processor_time() -> Result<Duration> {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Ok(Duration::new(u64::try_from(time.tv_sec)?, u32::try_from(time.tv_nsec)?))
}

fn hex(key: &[u8]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The keys that the writer writes, in no order, and the same ones again and again.
fn other_keys(tokens: &Tokens) -> impl Iterator<Item = [u8; 32]> {
    tokens.keys().iter().cycle().map(|key| key.map(|byte| !byte))
}

/// A table of an open read transaction, and how many reads more it serves.
type Kept = (ReadOnlyTable<&'static [u8], &'static [u8]>, u32);

struct Bare {
    db: Database,
    keys: Vec<[u8; 32]>,
    others: Vec<[u8; 32]>,
    kept_for: u32,
}

fn bare(dir: &Path, tokens: &Tokens, kept_for: u32) -> Result<Box<dyn Reading>> {
    let db = Database::create(dir.join("rows.redb"))?;
    let tx = db.begin_write()?;
    {
        let mut table = tx.open_table(ROWS)?;
        for key in tokens.keys() {
            table.insert(&key[..], &row(LIFE)[..])?;
        }
    }
    tx.commit()?;
    let others = other_keys(tokens).take(tokens.len()).collect();
    Ok(Box::new(Bare { db, keys: tokens.keys().to_vec(), others, kept_for }))
}

impl Reading for Bare {
    fn reader(&self) -> Result<Box<dyn FnMut(u32) -> Result<()> + '_>> {
        let mut kept: Option<Kept> = None;
        Ok(Box::new(move |number| {
            let (table, left) = match &mut kept {
                Some(kept) if kept.1 > 0 => kept,
                _ => kept.insert((self.db.begin_read()?.open_table(ROWS)?, self.kept_for)),
            };
            *left -= 1;
            let row = table.get(&self.keys[number as usize][..])?;
            // A caller has a value of its own, as from the others.
            ensure!(row.map(|row| row.value().to_vec()).is_some(), "row {number} is not there");
            Ok(())
        }))
    }

    fn write(&self, stop: &AtomicBool) -> Result<u64> {
        let (mut written, mut others) = (0, self.others.iter().cycle());
        while !stop.load(Ordering::Relaxed) {
            let tx = self.db.begin_write()?;
            {
                let mut table = tx.open_table(ROWS)?;
                for key in others.by_ref().take(GROUP) {
                    table.insert(&key[..], &row(now())[..])?;
                }
            }
            tx.commit()?;
            written += GROUP as u64;
        }
        Ok(written)
    }
}

/// A store of a room.
fn room<R: Reading + 'static>(
    dir: &Path,
    tokens: &Tokens,
    fill: fn(&Cloakroom, &Tokens) -> Result<R>,
) -> Result<Box<dyn Reading>> {
    let room = Cloakroom::open(dir.join("rows.cloak"))?;
    let filled = fill(&room, tokens)?;
    room.checkpoint()?;
    Ok(Box::new(filled))
}

/// Issues the writes with [`GROUP`] of them in flight, until it is told to stop or there are no
/// more, and answers how many.
fn in_flight<E>(writes: impl Iterator<Item = Pending<(), E>>, stop: &AtomicBool) -> Result<u64>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let (mut written, mut pending) = (0, VecDeque::with_capacity(GROUP));
    let mut writes = writes.fuse();
    loop {
        let next = if stop.load(Ordering::Relaxed) { None } else { writes.next() };
        let over = next.is_none();
        pending.extend(next);
        while pending.len() >= GROUP || (over && !pending.is_empty()) {
            pending.pop_front().map_or(Ok(()), Pending::wait)?;
            written += 1;
        }
        if over {
            return Ok(written);
        }
    }
}

/// Never told to stop.
static NEVER: AtomicBool = AtomicBool::new(false);

struct Hits {
    cache: Cache<String>,
    keys: Vec<String>,
    others: Vec<String>,
    value: String,
}

impl Hits {
    fn fill(room: &Cloakroom, tokens: &Tokens) -> Result<Self> {
        let cache = room.cache("http");
        let value = "v".repeat(88);
        let keys: Vec<String> = tokens.keys().iter().map(|key| hex(key)).collect();
        let others = other_keys(tokens).take(tokens.len()).map(|key| hex(&key)).collect();
        let writes = keys.iter().map(|key| cache.set_for(key, &value, Ttl::Never));
        in_flight(writes, &NEVER)?;
        Ok(Self { cache, keys, others, value })
    }
}

impl Reading for Hits {
    fn reader(&self) -> Result<Box<dyn FnMut(u32) -> Result<()> + '_>> {
        Ok(Box::new(|number| {
            let value = self.cache.get(&self.keys[number as usize]).wait()?;
            ensure!(value.is_some(), "entry {number} is not there");
            Ok(())
        }))
    }

    fn write(&self, stop: &AtomicBool) -> Result<u64> {
        let others = self.others.iter().cycle();
        in_flight(others.map(|key| self.cache.set_for(key, &self.value, Ttl::Never)), stop)
    }
}

struct States {
    states: ::cloakroom::state::State,
    keys: Vec<Identity>,
    others: Vec<Identity>,
}

impl States {
    fn fill(room: &Cloakroom, tokens: &Tokens) -> Result<Self> {
        let identity = |key: &[u8]| Identity::new("tenant", "user", hex(key), "run");
        let keys: Vec<_> = tokens.keys().iter().map(|key| identity(key)).collect();
        let others = other_keys(tokens).take(tokens.len()).map(|key| identity(&key)).collect();
        let filled = Self { states: room.state(), keys, others };
        in_flight(filled.keys.iter().map(|identity| filled.save(identity)), &NEVER)?;
        Ok(filled)
    }

    fn save(&self, identity: &Identity) -> Pending<(), ::cloakroom::state::StateError> {
        let record =
            StateRecord::new(identity.clone(), "memory", format!("\"{}\"", "v".repeat(40)));
        self.states.save(record).map(drop)
    }
}

impl Reading for States {
    fn reader(&self) -> Result<Box<dyn FnMut(u32) -> Result<()> + '_>> {
        Ok(Box::new(|number| {
            self.states.load(&self.keys[number as usize], "memory").wait()?;
            Ok(())
        }))
    }

    fn write(&self, stop: &AtomicBool) -> Result<u64> {
        in_flight(self.others.iter().cycle().map(|identity| self.save(identity)), stop)
    }
}

struct Peeks {
    tokens: ::cloakroom::form_token::FormTokens,
    subject: TokenSubject,
    keys: Vec<LookupKey>,
}

impl Peeks {
    fn fill(room: &Cloakroom, tokens: &Tokens) -> Result<Self> {
        let keys = tokens.keys().iter().map(|key| LookupKey::new(hex(key))).collect();
        let subject = TokenSubject::Authenticated(SUBJECT.into());
        let filled = Self { tokens: room.form_tokens(), subject, keys };
        in_flight(filled.keys.iter().map(|key| filled.insert(key)), &NEVER)?;
        Ok(filled)
    }

    fn insert(&self, key: &LookupKey) -> Pending<()> {
        let subject = self.subject.clone();
        let record = FormTokenRecord::new(key.clone(), subject, PURPOSE, now() + LIFE);
        self.tokens.insert_form_token(record)
    }
}

impl Reading for Peeks {
    fn reader(&self) -> Result<Box<dyn FnMut(u32) -> Result<()> + '_>> {
        let now = now();
        Ok(Box::new(move |number| {
            let key = &self.keys[number as usize];
            let peek = self.tokens.peek_form_token(key, &self.subject, PURPOSE, None, now);
            let (outcome, _) = peek.wait()?;
            ensure!(outcome == TokenConsumeOutcome::Proceed, "token {number}: {outcome:?}");
            Ok(())
        }))
    }

    /// New tokens, which are inserted and then consumed.
    fn write(&self, stop: &AtomicBool) -> Result<u64> {
        let (mut written, mut random) = (0, fastrand::Rng::new());
        while !stop.load(Ordering::Relaxed) {
            let key = || LookupKey::new(hex(&std::array::from_fn::<u8, 32, _>(|_| random.u8(..))));
            let keys: Vec<LookupKey> = std::iter::repeat_with(key).take(GROUP).collect();
            written += in_flight(keys.iter().map(|key| self.insert(key)), stop)?;
            let consume = |key| {
                let store = &self.tokens;
                store.consume_form_token(key, &self.subject, PURPOSE, None, now()).map(drop)
            };
            written += in_flight(keys.iter().map(consume), stop)?;
        }
        Ok(written)
    }
}
