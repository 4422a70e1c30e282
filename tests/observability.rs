//! What a room tells the crates `tracing` and `metrics`.

#[path = "support/rooms.rs"]
mod rooms;

use cloakroom::cache::CacheStore;
use cloakroom::handoff::{HandoffStateStore, JsonObject};
use cloakroom::limits::LONGEST_KEYS_LOG_CAPACITY;
use cloakroom::testing::{CallKind, Fault, SimStorage, Storage};
use cloakroom::watch::Filter;
use cloakroom::{Cloakroom, Durability, Error, ManualClock};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
};
use metrics::{SharedString, Unit};
use rooms::{consume, insert, small, state, state_of};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Level, Subscriber};

/// Something that was told.
#[derive(Debug, Clone)]
struct Told {
    level: Level,
    /// The message of an event, or the name of a span.
    what: String,
    fields: BTreeMap<&'static str, String>,
    /// The spans that it happened in, the outermost first.
    inside: Vec<&'static str>,
}

impl Told {
    fn number(&self, field: &str) -> u64 {
        self.fields[field].parse().unwrap()
    }
}

#[derive(Default)]
struct Journal {
    told: Vec<Told>,
    /// The names of all spans there ever were, by number from 1.
    spans: Vec<&'static str>,
    entered: Vec<(std::thread::ThreadId, u64)>,
    metrics: BTreeMap<String, Vec<f64>>,
}

static JOURNAL: Mutex<Option<Journal>> = Mutex::new(None);
static NEXT_SPAN: AtomicU64 = AtomicU64::new(1);

fn journal<R>(look: impl FnOnce(&mut Journal) -> R) -> R {
    look(JOURNAL.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get_or_insert_default())
}

struct Listener;

struct Fields<'a>(&'a mut Told);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let value = format!("{value:?}");
        match field.name() {
            "message" => self.0.what = value,
            name => drop(self.0.fields.insert(name, value)),
        }
    }
}

fn inside(journal: &Journal) -> Vec<&'static str> {
    let this = std::thread::current().id();
    let entered = journal.entered.iter().filter(|(thread, _)| *thread == this);
    entered.map(|(_, id)| journal.spans[usize::try_from(*id).unwrap() - 1]).collect()
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "cloakroom"
    }

    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        let metadata = span.metadata();
        journal(|journal| {
            let mut told = Told {
                level: *metadata.level(),
                what: metadata.name().into(),
                fields: BTreeMap::new(),
                inside: inside(journal),
            };
            span.record(&mut Fields(&mut told));
            journal.told.push(told);
            journal.spans.push(metadata.name());
            span::Id::from_u64(NEXT_SPAN.fetch_add(1, Ordering::Relaxed))
        })
    }

    fn event(&self, event: &Event<'_>) {
        journal(|journal| {
            let level = *event.metadata().level();
            let mut told = Told {
                level,
                what: String::new(),
                fields: BTreeMap::new(),
                inside: inside(journal),
            };
            event.record(&mut Fields(&mut told));
            journal.told.push(told);
        });
    }

    fn enter(&self, span: &span::Id) {
        journal(|journal| journal.entered.push((std::thread::current().id(), span.into_u64())));
    }

    fn exit(&self, span: &span::Id) {
        let this = (std::thread::current().id(), span.into_u64());
        journal(|journal| journal.entered.retain(|entered| *entered != this));
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
}

/// Counters and histograms as lists of what was recorded, gauges as what was set.
struct Cell(String);

impl Cell {
    fn push(&self, value: f64) {
        journal(|journal| journal.metrics.entry(self.0.clone()).or_default().push(value));
    }
}

impl CounterFn for Cell {
    fn increment(&self, value: u64) {
        self.push(value as f64);
    }

    fn absolute(&self, _: u64) {
        panic!("counters only rise");
    }
}

impl GaugeFn for Cell {
    fn increment(&self, _: f64) {
        panic!("gauges are set");
    }

    fn decrement(&self, _: f64) {
        panic!("gauges are set");
    }

    fn set(&self, value: f64) {
        self.push(value);
    }
}

impl HistogramFn for Cell {
    fn record(&self, value: f64) {
        self.push(value);
    }
}

impl Cell {
    fn of(key: &Key) -> Arc<Self> {
        let labels: String =
            key.labels().map(|label| format!("{{{}={}}}", label.key(), label.value())).collect();
        Arc::new(Self(format!("{}{labels}", key.name())))
    }
}

impl Recorder for Listener {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Cell::of(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Cell::of(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Cell::of(key))
    }
}

/// The turn of one test: what is told belongs to it, because the listeners are of the whole
/// process.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    static LISTEN: Once = Once::new();
    let turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    LISTEN.call_once(|| {
        tracing::subscriber::set_global_default(Listener).unwrap();
        metrics::set_global_recorder(Listener).map_err(|_| "another recorder").unwrap();
    });
    journal(|journal| {
        journal.told.clear();
        journal.metrics.clear();
    });
    turn
}

/// What was told under this name or message.
fn told(what: &str) -> Vec<Told> {
    journal(|journal| journal.told.iter().filter(|told| told.what == what).cloned().collect())
}

fn once(what: &str) -> Told {
    let mut found = told(what);
    assert_eq!(found.len(), 1, "{what}: {:?}", journal(|journal| journal.told.clone()));
    found.remove(0)
}

fn sum(metric: &str) -> f64 {
    journal(|journal| journal.metrics.get(metric).map_or(0.0, |values| values.iter().sum()))
}

fn recorded(metric: &str) -> usize {
    journal(|journal| journal.metrics.get(metric).map_or(0, Vec::len))
}

fn is(found: f64, expected: u64) {
    assert!((found - expected as f64).abs() < 0.5, "{found} and not {expected}");
}

fn simulated() -> (Cloakroom, SimStorage) {
    let sim = SimStorage::new(5);
    (small().without_threads().open_on(Arc::new(sim.clone())).unwrap(), sim)
}

fn set(room: &Cloakroom, id: &str) {
    room.handoff().set(id, &state(1), 600).wait().unwrap();
}

#[test]
fn opening_and_closing_report_their_outcome() {
    let _turn = turn();
    let (room, sim) = simulated();
    let opened = once("opened");
    assert_eq!(
        (opened.level, opened.number("lsn"), opened.number("replayed")),
        (Level::INFO, 0, 0)
    );
    assert_eq!(opened.inside, ["open"]);
    assert_eq!(once("open").fields["path"], "(in memory)");
    for id in ["a", "b", "c"] {
        set(&room, id);
    }
    let image = SimStorage::from_image(sim.crash_image(0), 0);
    room.close().unwrap();
    room.close().unwrap();
    drop(room);
    let closed = once("closed");
    // Closing writes the time down.
    assert_eq!(
        (closed.level, closed.number("lsn"), closed.inside),
        (Level::INFO, 4, vec!["close"])
    );
    let _again = small().without_threads().open_on(Arc::new(image)).unwrap();
    let replayed = &told("opened")[1];
    assert_eq!(
        (replayed.number("lsn"), replayed.number("btree_lsn"), replayed.number("replayed")),
        (3, 0, 3)
    );
    is(sum("cloakroom_opens_total"), 2);
    is(sum("cloakroom_replayed_transactions_total"), 3);
    assert_eq!(recorded("cloakroom_open_seconds"), 2);
}

#[test]
fn erasing_a_torn_tail_is_reported() {
    let _turn = turn();
    let (room, sim) = simulated();
    set(&room, "durable");
    let relaxed = room.handoff().with_durability(Durability::Os);
    for number in 0..40 {
        relaxed.set(&format!("{number}"), &state_of(700), 600).wait().unwrap();
    }
    let torn = (2..100).any(|seed| {
        let image = SimStorage::from_image(sim.crash_image(seed), seed);
        drop(small().without_threads().open_on(Arc::new(image)).unwrap());
        !told("erased a torn tail of the log").is_empty()
    });
    assert!(torn, "no crash tore the tail");
    let cut = &told("erased a torn tail of the log")[0];
    assert!(cut.level == Level::WARN && cut.number("bytes") > 0 && cut.number("lsn") > 0);
    assert_eq!(cut.inside, ["open"]);
}

#[test]
fn a_file_that_does_not_open_says_why() {
    let _turn = turn();
    let nothing = SimStorage::from_image(vec![7; 1 << 16], 0);
    assert!(small().without_threads().open_on(Arc::new(nothing)).is_err());
    let failed = once("open failed");
    assert!(
        failed.level == Level::ERROR && failed.fields["error"].contains("not a cloakroom file")
    );
    is(sum("cloakroom_open_failures_total"), 1);
}

#[test]
fn commit_groups_are_traced_and_agree_with_the_stats() {
    let _turn = turn();
    let (room, _) = simulated();
    for size in [3_u64, 1, 5] {
        let pending: Vec<_> = (0..size)
            .map(|number| room.handoff().set(&format!("{number}"), &state(1), 60))
            .collect();
        pending.into_iter().for_each(|pending| pending.wait().unwrap());
    }
    let groups = told("flushed");
    let sizes: Vec<_> = groups.iter().map(|group| group.number("transactions")).collect();
    assert_eq!(sizes, [3, 1, 5]);
    assert!(groups.iter().all(|group| group.level == Level::TRACE));
    assert_eq!(groups[2].number("durable_lsn"), 9);
    let stats = room.engine_stats().unwrap();
    is(sum("cloakroom_flushes_total"), stats.flushes);
    is(sum("cloakroom_group_transactions"), stats.group_frames.sum());
    is(sum("cloakroom_log_bytes_total"), stats.log_bytes_written);
    is(sum("cloakroom_flush_seconds") * 1e9, stats.flush_ns.sum());
    assert_eq!(recorded("cloakroom_flush_seconds"), 3);
}

#[test]
fn a_checkpoint_is_a_span_that_ends_with_its_figures() {
    let _turn = turn();
    let (room, _) = simulated();
    set(&room, "a");
    set(&room, "b");
    let before = room.engine_stats().unwrap().btree_bytes_written;
    room.checkpoint().unwrap();
    let done = &told("checkpoint")[1];
    // A state and its index row, twice, and the time line.
    assert_eq!((done.number("lsn"), done.number("rows")), (2, 5));
    assert_eq!((done.level, &done.inside[..]), (Level::INFO, &["checkpoint"][..]));
    assert_eq!(told("checkpoint")[0].number("lsn"), 2);
    assert_eq!(once("log switched to its other segment").number("lsn"), 2);
    let stats = room.engine_stats().unwrap();
    assert_eq!(done.number("bytes"), stats.btree_bytes_written - before);
    is(sum("cloakroom_checkpoints_total"), 1);
    is(sum("cloakroom_btree_written_bytes_total"), stats.btree_bytes_written - before);
    is(sum("cloakroom_btree_bytes"), stats.btree_bytes);
    assert_eq!(recorded("cloakroom_checkpoint_seconds"), 1);
}

#[test]
fn a_full_disk_stalls_and_a_reopened_tree_are_reported() {
    let _turn = turn();
    let (room, sim) = simulated();
    sim.set_capacity(Some(sim.len().unwrap()));
    let full =
        |number: u64| room.handoff().set(&format!("{number}"), &state_of(60_000), 600).wait();
    assert!((0..10_000).any(|number| matches!(full(number), Err(Error::DiskFull { .. }))));
    let stats = room.engine_stats().unwrap();
    assert!(told("disk full").iter().all(|told| told.level == Level::ERROR));
    for (what, count) in [
        ("disk full", stats.checkpoint_failures),
        ("checkpoint failed, will be retried", stats.checkpoint_failures),
        ("writer waits: both log segments are full", stats.stalls),
        ("writer stopped waiting for a log segment", stats.stalls),
    ] {
        assert_eq!(told(what).len() as u64, count, "{what}");
        assert!(count > 0, "{what}");
    }
    is(sum("cloakroom_disk_full_total"), stats.checkpoint_failures);
    is(sum("cloakroom_checkpoint_failures_total"), stats.checkpoint_failures);
    is(sum("cloakroom_stalls_total"), stats.stalls);
    is(sum("cloakroom_stall_seconds") * 1e9, u64::try_from(stats.stall_time.as_nanos()).unwrap());
    assert!(!told("B-tree reopened after a fault").is_empty());
    assert!(sum("cloakroom_btree_reopens_total") > 0.5);
}

#[test]
fn a_failed_flush_and_the_close_after_it_are_reported_once() {
    let _turn = turn();
    let (room, sim) = simulated();
    sim.fail_call(CallKind::DurableWrite, 0, Fault::Eio);
    for id in ["a", "b"] {
        assert!(room.handoff().set(id, &state(1), 600).wait().is_err());
    }
    assert!(room.close().is_err());
    let poisoned = once("log failed: nothing is written until the file is reopened");
    assert!(poisoned.level == Level::ERROR && poisoned.fields.contains_key("error"));
    is(sum("cloakroom_poisonings_total"), 1);
    assert_eq!(once("closed after a failure").level, Level::ERROR);
}

#[test]
fn damage_is_reported_to_tracing_and_metrics_too() {
    let _turn = turn();
    let (room, sim) = simulated();
    for number in 0..200 {
        drop(room.handoff().set(&format!("{number}"), &state_of(2_000), 600));
    }
    room.close().unwrap();
    // In the middle of a value that lies in the B-tree, behind the log.
    let image = sim.crash_image(0);
    let log_end = usize::try_from(LONGEST_KEYS_LOG_CAPACITY).unwrap() + 8_192;
    let inside = image[log_end..].windows(64).position(|bytes| bytes == [b'x'; 64]).unwrap();
    sim.flip_bit((log_end + inside) as u64, 3);
    let sim = SimStorage::from_image(sim.crash_image(0), 0);
    let room = small().without_threads().open_on(Arc::new(sim)).unwrap();
    let damaged = |number: u64| room.handoff().get(&format!("{number}")).wait().is_err();
    assert!((0..200).any(damaged), "no one met the damage");
    let damage = &told("damage found")[0];
    assert!(damage.level == Level::ERROR && !damage.fields["location"].is_empty());
    assert!(damage.fields["detail"].contains("checksum"), "{damage:?}");
    assert!(sum("cloakroom_corruptions_total") > 0.5);
}

#[test]
fn consumes_are_counted_by_outcome_and_only_traced() {
    let _turn = turn();
    let (room, _) = simulated();
    let tokens = room.form_tokens();
    insert(&tokens, "aa").wait().unwrap();
    journal(|journal| journal.told.clear());
    for key in ["aa", "aa", "aa", "bb"] {
        consume(&tokens, key).wait().unwrap();
    }
    is(sum("cloakroom_consumes_total{outcome=proceed}"), 1);
    is(sum("cloakroom_consumes_total{outcome=replay}"), 2);
    is(sum("cloakroom_consumes_total{outcome=invalid}"), 1);
    assert_eq!(told("form token presented").len(), 4);
    assert!(journal(|journal| journal.told.iter().all(|told| told.level == Level::TRACE)));
}

#[test]
fn the_slices_of_the_sweeper_are_reported() {
    let _turn = turn();
    let clock = Arc::new(ManualClock::new(0));
    let room = small().without_threads().clock(clock.clone()).open_in_memory().unwrap();
    for number in 0..300 {
        drop(room.handoff().set(&format!("{number}"), &state(1), 1));
    }
    clock.advance(Duration::from_secs(1));
    assert_eq!(room.sweep().unwrap().total(), 300);
    let steps = told("swept");
    assert_eq!(steps.iter().map(|step| step.number("entries")).sum::<u64>(), 300);
    assert_eq!(steps.len() as u64, room.engine_stats().unwrap().sweep_slices);
    assert!(steps.iter().all(|step| step.level == Level::DEBUG && step.number("changes") > 0));
    is(sum("cloakroom_swept_entries_total"), 300);
    assert_eq!(recorded("cloakroom_sweep_slice_seconds"), steps.len());
}

#[test]
fn a_compaction_and_a_backup_are_spans_that_end_with_their_figures() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let room = small().without_threads().open(dir.path().join("room.cloak")).unwrap();
    for number in 0..2_000 {
        drop(room.handoff().set(&format!("{number:04}"), &state_of(2_000), 600));
    }
    room.checkpoint().unwrap();
    for number in 0..1_990 {
        drop(room.handoff().delete(&format!("{number:04}")));
    }
    let report = room.compact().unwrap();
    assert!(report.bytes_after < report.bytes_before, "{report:?}");
    let compacted = once("compacted");
    assert_eq!((compacted.level, &compacted.inside[..]), (Level::INFO, &["compact"][..]));
    assert_eq!(compacted.number("bytes_after"), report.bytes_after);
    assert_eq!(compacted.number("pages_moved"), report.pages_moved);
    is(sum("cloakroom_compactions_total"), 1);
    is(
        sum("cloakroom_compacted_bytes_total"),
        compacted.number("bytes_before") - report.bytes_after,
    );

    let report = room.backup(dir.path().join("backup.cloak")).unwrap();
    let backed_up = once("backed up");
    assert_eq!((backed_up.level, &backed_up.inside[..]), (Level::INFO, &["backup"][..]));
    assert_eq!((backed_up.number("lsn"), backed_up.number("rows")), (report.lsn, report.rows));
    assert!(once("backup").fields["path"].ends_with("backup.cloak"));
    is(sum("cloakroom_backups_total"), 1);
}

#[test]
fn an_overtaken_watcher_is_reported() {
    let _turn = turn();
    let (room, _) = simulated();
    let mut watch = room.watch(Filter::all().buffer(1)).unwrap();
    for id in ["a", "b", "c"] {
        set(&room, id);
    }
    watch.recv().unwrap();
    assert!(watch.recv().is_err());
    let overtaken = once("watcher overtaken");
    assert_eq!((overtaken.number("missed_from_lsn"), overtaken.number("resumes_at_lsn")), (2, 4));
    is(sum("cloakroom_watch_overtaken_total"), 1);
}

#[test]
fn a_log_that_waits_for_space_is_reported_when_it_begins_and_ends() {
    let _turn = turn();
    let (room, sim) = simulated();
    (0..3).for_each(|nth| sim.fail_call(CallKind::DurableWrite, nth, Fault::Enospc));
    room.handoff().set("a", &state(1), 600).wait().unwrap();
    let waits = once("log waits for space: the disk is full");
    assert!(waits.level == Level::ERROR && waits.fields.contains_key("error"));
    assert_eq!(once("log has space again").level, Level::INFO);
    is(sum("cloakroom_log_disk_full_total"), 1);
    is(sum("cloakroom_poisonings_total"), 0);
}

#[test]
fn nothing_that_is_told_has_a_key_or_a_value() {
    const SECRET: &str = "5ec4e75ec4e7";
    let _turn = turn();
    journal(|journal| {
        journal.told.clear();
        journal.metrics.clear();
    });
    let (room, sim) = simulated();
    let secret = JsonObject::from_iter([("card".to_owned(), SECRET.into())]);
    room.handoff().set(SECRET, &secret, 600).wait().unwrap();
    insert(&room.form_tokens(), SECRET).wait().unwrap();
    consume(&room.form_tokens(), SECRET).wait().unwrap();
    let cache = room.cache::<String>(SECRET);
    cache.set_with_tags(SECRET, &SECRET.to_owned(), 1, &[SECRET]).wait().unwrap();
    room.checkpoint().unwrap();
    room.sweep().unwrap();
    room.compact().unwrap();
    let dir = tempfile::tempdir().unwrap();
    room.backup(dir.path().join("backup.cloak")).unwrap();
    drop(room.handoff().set(&SECRET.repeat(10_000), &secret, 600));
    // A failed flush, the calls after it, and the file as it is opened again.
    sim.fail_call(CallKind::DurableWrite, 0, Fault::Eio);
    drop(room.handoff().set(SECRET, &secret, 600).wait());
    drop(room.handoff().set(SECRET, &secret, 600).wait());
    drop(room.close());
    journal(|journal| {
        assert!(journal.told.len() > 8, "{}", journal.told.len());
        for told in &journal.told {
            assert!(!format!("{told:?}").contains(SECRET), "{}", told.what);
        }
        assert!(journal.metrics.keys().all(|metric| !metric.contains(SECRET)));
    });
}
