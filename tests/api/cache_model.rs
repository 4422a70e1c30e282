//! Caches against a reference that is plain maps and obviously right: random operations, in
//! transactions that are kept and lost, clock moves and reopenings.

use crate::scale::scaled;
use cloakroom::cache::{self, Cache, CacheStore};
use cloakroom::limits::LONGEST_KEYS_LOG_CAPACITY;
use cloakroom::{Cloakroom, Error, ManualClock, Result};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const START_MS: u64 = 1_700_000_000_000;
const NAMES: [&str; 3] = ["http", "htt", "http\0"];
const HASHES: [&str; 8] = ["", "a", "a\0", "a%", "ab", "b", "b\0\u{10ffff}", "é"];
const TAGS: [&str; 4] = ["", "x", "x\0", "y"];
/// Values of more bytes are not stored.
const MAX_ENTRY_BYTES: usize = 40;
const MAX_BYTES: u64 = 120;
const MAX_ENTRIES: u64 = 4;

/// What is stored: a string of some length, or a number, which does not decode as a string.
#[derive(Debug, Clone)]
enum Content {
    Text(usize),
    Number,
}

#[derive(Debug, Clone)]
enum CacheOp {
    Get(usize),
    Set { hash: usize, content: Content, ttl_seconds: i64, tags: Option<Vec<usize>>, limited: bool },
    Delete(usize),
    Clear(Option<usize>),
    Invalidate(Vec<usize>),
}

#[derive(Debug, Clone, Copy)]
enum Ending {
    Commit,
    Err,
    Panic,
}

#[derive(Debug, Clone)]
enum Op {
    One(usize, CacheOp),
    Together(Vec<(usize, CacheOp)>, Ending),
    Advance(u64),
    Checkpoint,
    Sweep,
    Compare,
    Reopen,
}

#[derive(Debug, PartialEq)]
enum Answer {
    Value(Option<String>),
    Done,
    Removed(u64),
}

#[derive(Debug, Clone)]
struct Entry {
    json: String,
    expires_at_ms: Option<u64>,
    stored_at_ms: u64,
    tags: BTreeSet<String>,
    /// Greater is later.
    used: u64,
}

/// One cache: a map, searched from end to end for everything.
#[derive(Debug, Clone, Default)]
struct Reference {
    entries: BTreeMap<String, Entry>,
    clock: u64,
}

impl Reference {
    fn forget_expired(&mut self, now_ms: u64) {
        self.entries.retain(|_, entry| entry.expires_at_ms.is_none_or(|at| now_ms < at));
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn bytes(&self) -> u64 {
        self.entries.iter().map(|(hash, entry)| (hash.len() + entry.json.len()) as u64).sum()
    }

    fn run(&mut self, op: &CacheOp, now_ms: u64) -> Answer {
        self.forget_expired(now_ms);
        match op {
            CacheOp::Get(hash) => {
                let used = self.tick();
                let Some(entry) = self.entries.get_mut(HASHES[*hash]) else {
                    return Answer::Value(None);
                };
                entry.used = used;
                let value = serde_json::from_str(&entry.json).ok();
                if value.is_none() {
                    self.entries.remove(HASHES[*hash]);
                }
                return Answer::Value(value);
            }
            CacheOp::Set { hash, content, ttl_seconds, tags, limited } => {
                self.set(
                    HASHES[*hash],
                    &json(content),
                    *ttl_seconds,
                    tags.as_deref(),
                    *limited,
                    now_ms,
                );
            }
            CacheOp::Delete(hash) => drop(self.entries.remove(HASHES[*hash])),
            CacheOp::Clear(scope) => {
                let scope = scope.map_or("", |scope| HASHES[scope]);
                self.entries.retain(|hash, _| !hash.starts_with(scope));
            }
            CacheOp::Invalidate(tags) => {
                let before = self.entries.len();
                self.entries
                    .retain(|_, entry| !tags.iter().any(|tag| entry.tags.contains(TAGS[*tag])));
                return Answer::Removed((before - self.entries.len()) as u64);
            }
        }
        Answer::Done
    }

    fn set(
        &mut self,
        hash: &str,
        json: &str,
        ttl_seconds: i64,
        tags: Option<&[usize]>,
        limited: bool,
        now_ms: u64,
    ) {
        let old = self.entries.remove(hash);
        let too_large = json.len() > MAX_ENTRY_BYTES
            || (limited && (hash.len() + json.len()) as u64 > MAX_BYTES);
        if ttl_seconds < 0 || too_large {
            return;
        }
        let tags = match tags {
            Some(tags) => tags.iter().map(|tag| TAGS[*tag].to_owned()).collect(),
            None => old.map(|old| old.tags).unwrap_or_default(),
        };
        let expires_at_ms = (ttl_seconds > 0).then(|| now_ms + ttl_seconds.unsigned_abs() * 1_000);
        let used = self.tick();
        let entry =
            Entry { json: json.to_owned(), expires_at_ms, stored_at_ms: now_ms, tags, used };
        self.entries.insert(hash.to_owned(), entry);
        while limited && (self.entries.len() as u64 > MAX_ENTRIES || self.bytes() > MAX_BYTES) {
            let least = self.entries.iter().min_by_key(|(_, entry)| entry.used).unwrap().0.clone();
            self.entries.remove(&least);
        }
    }

    /// After a reopening whatever was stored first counts as used first.
    fn reopen(&mut self) {
        let mut order: Vec<_> =
            self.entries.iter().map(|(hash, entry)| (entry.stored_at_ms, hash.clone())).collect();
        order.sort();
        for (_, hash) in order {
            let used = self.tick();
            self.entries.get_mut(&hash).unwrap().used = used;
        }
    }
}

fn json(content: &Content) -> String {
    match content {
        Content::Text(len) => format!("\"{}\"", "v".repeat(*len)),
        Content::Number => "7".into(),
    }
}

fn value(content: &Content) -> serde_json::Value {
    serde_json::from_str(&json(content)).unwrap()
}

fn names(tags: &[usize]) -> Vec<&'static str> {
    tags.iter().map(|tag| TAGS[*tag]).collect()
}

/// Runs an operation through a handle, or through a transaction: both have the same methods.
macro_rules! answer {
    ($op:expr, $texts:expr, $values:expr, $done:expr) => {{
        let done = $done;
        Ok(match $op {
            CacheOp::Get(hash) => Answer::Value(done.value($texts.get(HASHES[*hash]))?),
            CacheOp::Set { hash, content, ttl_seconds, tags, limited } => {
                let mut values = $values.with_max_entry_bytes(MAX_ENTRY_BYTES as u64);
                if *limited {
                    values = values.with_max_entries(MAX_ENTRIES).with_max_bytes(MAX_BYTES);
                }
                let (hash, value) = (HASHES[*hash], value(content));
                match tags {
                    Some(tags) => {
                        done.unit(values.set_with_tags(hash, &value, *ttl_seconds, &names(tags)))?
                    }
                    None => done.unit(values.set(hash, &value, *ttl_seconds))?,
                }
                Answer::Done
            }
            CacheOp::Delete(hash) => {
                done.unit($texts.delete(HASHES[*hash]))?;
                Answer::Done
            }
            CacheOp::Clear(scope) => {
                done.unit($texts.clear(scope.map(|scope| HASHES[scope])))?;
                Answer::Done
            }
            CacheOp::Invalidate(tags) => match &names(tags)[..] {
                [tag] => Answer::Removed(done.count($texts.invalidate_by_tag(tag))?),
                tags => Answer::Removed(done.count($texts.invalidate_by_tags(tags))?),
            },
        })
    }};
}

/// How the answer of a handle is had.
struct Waiting;

impl Waiting {
    fn value<T>(&self, answer: cloakroom::Pending<T>) -> Result<T> {
        answer.wait()
    }
    fn unit(&self, answer: cloakroom::Pending<()>) -> Result<()> {
        answer.wait()
    }
    fn count(&self, answer: cloakroom::Pending<u64>) -> Result<u64> {
        answer.wait()
    }
}

/// How the answer of a transaction is had: it is there.
struct AtOnce;

impl AtOnce {
    fn value<T>(&self, answer: Result<T>) -> Result<T> {
        answer
    }
    fn unit(&self, answer: Result<()>) -> Result<()> {
        answer
    }
    fn count(&self, answer: Result<u64>) -> Result<u64> {
        answer
    }
}

fn run_alone(room: &Cloakroom, name: &str, op: &CacheOp) -> Result<Answer> {
    // A handle without a limit does not ask for uses to be noted, as the reference does.
    let texts: Cache<String> = room.cache(name).with_max_entries(MAX_ENTRIES);
    let values: Cache<serde_json::Value> = room.cache(name);
    answer!(op, texts, values, Waiting)
}

fn run_in(tx: &mut cloakroom::Transaction<'_>, name: &str, op: &CacheOp) -> Result<Answer> {
    fn texts<'a>(tx: &'a mut cloakroom::Transaction<'_>, name: &str) -> cache::Tx<'a, String> {
        tx.cache(name).with_max_entries(MAX_ENTRIES)
    }
    answer!(op, texts(tx, name), tx.cache::<serde_json::Value>(name), AtOnce)
}

struct Run {
    path: Option<PathBuf>,
    clock: Arc<ManualClock>,
    now_ms: u64,
    room: Cloakroom,
    references: Vec<Reference>,
}

impl Run {
    fn new(path: Option<PathBuf>) -> Self {
        let clock = Arc::new(ManualClock::new(START_MS));
        let room = open(path.as_ref(), &clock);
        Self {
            path,
            clock,
            now_ms: START_MS,
            room,
            references: vec![Reference::default(); NAMES.len()],
        }
    }

    fn check(&mut self, ops: &[Op]) {
        for op in ops {
            // Entries that are stored at the same time have no order that outlives the room.
            self.advance(1);
            self.step(op);
        }
        self.compare();
    }

    fn advance(&mut self, by_ms: u64) {
        self.now_ms += by_ms;
        self.clock.advance(Duration::from_millis(by_ms));
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::One(name, op) => {
                let expected = self.references[*name].run(op, self.now_ms);
                assert_eq!(run_alone(&self.room, NAMES[*name], op).unwrap(), expected, "{op:?}");
            }
            Op::Together(ops, ending) => self.together(ops, *ending),
            Op::Advance(by_ms) => self.advance(*by_ms),
            Op::Checkpoint => self.room.checkpoint().unwrap(),
            Op::Sweep => drop(self.room.sweep().unwrap()),
            Op::Compare => self.compare(),
            Op::Reopen => {
                let Some(path) = &self.path else { return };
                self.room.close().unwrap();
                self.room = open(Some(path), &self.clock);
                for reference in &mut self.references {
                    reference.forget_expired(self.now_ms);
                    reference.reopen();
                }
            }
        }
    }

    fn together(&mut self, ops: &[(usize, CacheOp)], ending: Ending) {
        let mut after = self.references.clone();
        let now_ms = self.now_ms;
        let answer = catch_unwind(AssertUnwindSafe(|| {
            self.room.atomically(|tx| {
                for (name, op) in ops {
                    let expected = after[*name].run(op, now_ms);
                    assert_eq!(run_in(tx, NAMES[*name], op)?, expected, "{op:?}");
                }
                match ending {
                    Ending::Commit => Ok(()),
                    Ending::Err => Err(Error::AlreadyExists),
                    Ending::Panic => std::panic::resume_unwind(Box::new("as planned")),
                }
            })
        }));
        match (ending, answer) {
            (Ending::Commit, Ok(answer)) => {
                answer.wait().unwrap();
                self.references = after;
            }
            (Ending::Err, Ok(answer)) => {
                assert!(matches!(answer.wait(), Err(Error::AlreadyExists)));
                self.keep_uses(ops, &after);
            }
            (Ending::Panic, Err(cause)) if cause.downcast_ref() == Some(&"as planned") => {
                self.keep_uses(ops, &after);
            }
            (_, Err(cause)) => std::panic::resume_unwind(cause),
            (_, Ok(answer)) => panic!("{answer:?}"),
        }
    }

    /// What a lost transaction read counts as used all the same, so that recency is not compared
    /// afterwards: both sides begin anew with a cleared cache.
    fn keep_uses(&mut self, ops: &[(usize, CacheOp)], _: &[Reference]) {
        self.compare();
        for name in ops.iter().map(|(name, _)| *name).collect::<BTreeSet<_>>() {
            if ops.iter().any(|(of, op)| *of == name && matches!(op, CacheOp::Get(_))) {
                self.step(&Op::One(name, CacheOp::Clear(None)));
            }
        }
    }

    fn compare(&mut self) {
        for (name, reference) in NAMES.iter().zip(&mut self.references) {
            reference.forget_expired(self.now_ms);
            let cache = self.room.cache::<String>(name);
            let (mut found, mut cursor) = (Vec::new(), None);
            loop {
                let page = cache.list(cursor.as_ref(), 3).wait().unwrap();
                found.extend(page.items);
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
            let found: Vec<_> = found
                .into_iter()
                .map(|entry| (entry.hash, entry.expires_at_ms, entry.bytes, entry.tags))
                .collect();
            let expected: Vec<_> = reference
                .entries
                .iter()
                .map(|(hash, entry)| {
                    let tags: Vec<_> = entry.tags.iter().cloned().collect();
                    (hash.clone(), entry.expires_at_ms, entry.json.len() as u64, tags)
                })
                .collect();
            assert_eq!(found, expected, "cache {name:?}");
            assert_eq!(cache.stats().wait().unwrap().live, expected.len() as u64);
        }
    }
}

fn open(path: Option<&PathBuf>, clock: &Arc<ManualClock>) -> Cloakroom {
    let builder = Cloakroom::builder().log_capacity(LONGEST_KEYS_LOG_CAPACITY).clock(clock.clone());
    match path {
        Some(path) => builder.open(path).unwrap(),
        None => builder.open_in_memory().unwrap(),
    }
}

fn cache_op() -> impl Strategy<Value = CacheOp> {
    let hash = || 0..HASHES.len();
    let tags = || prop::collection::vec(0..TAGS.len(), 0..4);
    let content = prop_oneof![8 => (0usize..38).prop_map(Content::Text), 1 => Just(Content::Text(39)), 1 => Just(Content::Number)];
    let ttl = prop_oneof![6 => 1i64..60, 2 => Just(0i64), 1 => Just(-1i64)];
    prop_oneof![
        4 => hash().prop_map(CacheOp::Get),
        8 => (hash(), content, ttl, prop::option::of(tags()), prop::bool::weighted(0.7)).prop_map(
            |(hash, content, ttl_seconds, tags, limited)| CacheOp::Set { hash, content, ttl_seconds, tags, limited }
        ),
        1 => hash().prop_map(CacheOp::Delete),
        1 => prop::option::weighted(0.8, hash()).prop_map(CacheOp::Clear),
        2 => tags().prop_map(CacheOp::Invalidate),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let named = || (prop_oneof![3 => Just(0usize), 1 => 0..NAMES.len()], cache_op());
    let ending =
        prop_oneof![3 => Just(Ending::Commit), 1 => Just(Ending::Err), 1 => Just(Ending::Panic)];
    prop_oneof![
        20 => named().prop_map(|(name, op)| Op::One(name, op)),
        4 => (prop::collection::vec(named(), 0..6), ending).prop_map(|(ops, ending)| Op::Together(ops, ending)),
        2 => (0u64..20_000).prop_map(Op::Advance),
        1 => Just(Op::Checkpoint),
        2 => Just(Op::Sweep),
        1 => Just(Op::Compare),
        1 => Just(Op::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: scaled(48, 96), max_shrink_iters: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_cache_in_memory_answers_as_plain_maps(ops in prop::collection::vec(op(), 1..150)) {
        Run::new(None).check(&ops);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_cache_in_a_file_answers_as_plain_maps(ops in prop::collection::vec(op(), 1..80)) {
        let dir = tempfile::tempdir().unwrap();
        Run::new(Some(dir.path().join("cache.cloak"))).check(&ops);
    }
}
