//! What the handles of one cache share in memory: the order of use, and counters.
//!
//! The order of use is not in the log: a hit writes nothing. It is read from the rows when a handle
//! with a limit is first used, and follows every change from then on.
//!
//! # Invariants
//! 1. The order changes under the engine's serial lock only, so it sees changes in their order.
//!    Hits are noted apart, and are taken over by the next change.
//! 2. An operation cannot know whether its transaction will be kept. So what it changes is
//!    *unconfirmed* until the first operation of a later transaction, which reads those rows again
//!    and makes the order agree with them.

use super::recency::{Recency, Stamp};
use super::row::{CacheRow, entry_key, hash_in};
use super::spec::Spec;
use crate::engine::access::Reader;
use crate::engine::cursor::RowCursor;
use crate::error::Result;
use crate::tables::Table;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How many hits are remembered until the next change.
const MAX_HITS: usize = 4_096;
/// How many rows are read again to confirm a transaction; after a larger one the whole order is
/// read again.
const MAX_UNCONFIRMED: usize = 4_096;

/// Tells the transactions of a process from one another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    number: u64,
    /// Whether the transaction may have more than one operation.
    shared: bool,
}

impl Turn {
    /// A transaction of one operation.
    pub(crate) fn alone() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { number: NEXT.fetch_add(1, Ordering::Relaxed), shared: false }
    }

    /// A transaction of several operations.
    pub(crate) fn shared() -> Self {
        Self { shared: true, ..Self::alone() }
    }
}

/// The state that all handles of one cache share.
#[derive(Debug, Default)]
pub(crate) struct CacheState {
    /// Whether the order of use was ever asked for. Until then nobody pays for it.
    tracked: AtomicBool,
    order: Mutex<Order>,
    /// Hashes that were hit since the last change, oldest first.
    hits: Mutex<Vec<Box<str>>>,
    pub(super) counters: CacheCounters,
}

/// What happened since the room was opened.
#[derive(Debug, Default)]
pub(super) struct CacheCounters {
    pub(super) hits: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) evictions: AtomicU64,
    pub(super) oversized: AtomicU64,
}

/// Adds one to a counter.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[derive(Debug, Default)]
pub(super) struct Order {
    recency: Option<Recency>,
    /// The transaction that changed it last.
    turn: u64,
    /// What that transaction changed, and when it had been used before.
    unconfirmed: Vec<(Arc<str>, Option<u64>)>,
    /// Whether that transaction changed more than that.
    overflowed: bool,
}

impl CacheState {
    /// Notes a hit, if anybody may ever want to know.
    pub(super) fn hit(&self, spec: &Spec, hash: &str) {
        count(&self.counters.hits);
        if spec.is_limited() {
            // What is stored from now on must take its place behind this hit.
            self.tracked.store(true, Ordering::Release);
        } else if !self.tracked.load(Ordering::Acquire) {
            return;
        }
        let mut hits = self.hits.lock();
        if hits.len() >= MAX_HITS {
            // A writer takes the other lock first; whoever finds it taken forgets the older half
            // instead.
            match self.order.try_lock() {
                Some(mut order) if order.recency.is_some() => order.take_over(&mut hits),
                _ => drop(hits.drain(..MAX_HITS / 2)),
            }
        }
        hits.push(hash.into());
    }

    /// Forgets the order of use: it is read from the rows again when somebody wants to know it.
    pub(super) fn forget_order(&self) {
        self.order.lock().recency = None;
    }

    /// Whether the next change through a handle with these limits reads the whole cache.
    pub(super) fn will_load(&self, spec: &Spec) -> bool {
        spec.is_limited() && self.order.try_lock().is_some_and(|order| order.recency.is_none())
    }

    /// The order of use, for an operation that is about to change rows in `turn`; `None` when
    /// nobody wants to know.
    pub(super) fn begin(
        &self,
        rows: &mut dyn Reader,
        spec: &Spec,
        turn: Turn,
    ) -> Result<Option<MutexGuard<'_, Order>>> {
        let limited = spec.is_limited();
        // In a shared transaction a later operation may begin the tracking, and must know what this
        // one changed.
        if !limited && !turn.shared && !self.tracked.load(Ordering::Acquire) {
            return Ok(None);
        }
        let mut order = self.order.lock();
        let agreed = order.agree(rows, spec, turn, limited);
        if agreed.is_err() {
            // It no longer knows what is so; the next operation reads everything again.
            order.recency = None;
        }
        agreed?;
        if order.recency.is_some() {
            self.tracked.store(true, Ordering::Release);
            order.take_over(&mut self.hits.lock());
        }
        Ok(Some(order))
    }
}

impl Order {
    /// Makes the order what the rows say.
    fn agree(
        &mut self,
        rows: &mut dyn Reader,
        spec: &Spec,
        turn: Turn,
        limited: bool,
    ) -> Result<()> {
        let tracked = spec.state.tracked.load(Ordering::Acquire);
        if self.turn != turn.number {
            self.turn = turn.number;
            let unconfirmed = std::mem::take(&mut self.unconfirmed);
            if std::mem::take(&mut self.overflowed) {
                self.recency = None;
            }
            if let Some(recency) = &mut self.recency {
                confirm(recency, rows, spec, unconfirmed)?;
            }
        }
        if !self.recency.as_mut().is_some_and(|recency| recency.advance(rows.now_ms())) {
            self.recency = None;
        }
        if self.recency.is_none() && (limited || tracked) {
            self.recency = Some(load(rows, spec)?);
        }
        Ok(())
    }

    fn take_over(&mut self, hits: &mut Vec<Box<str>>) {
        if let Some(recency) = &mut self.recency {
            hits.drain(..).for_each(|hash| recency.touch(&hash));
        }
    }

    /// Remembers that this transaction changes an entry.
    fn note(&mut self, hash: &Arc<str>) {
        if self.unconfirmed.len() >= MAX_UNCONFIRMED {
            self.overflowed = true;
            return;
        }
        let tick = self.recency.as_ref().and_then(|recency| recency.tick_of(hash));
        self.unconfirmed.push((Arc::clone(hash), tick));
    }

    /// An entry was stored.
    pub(super) fn stored(&mut self, hash: &str, stamp: Stamp) {
        let hash = Arc::from(hash);
        self.note(&hash);
        if let Some(recency) = &mut self.recency {
            recency.insert(hash, stamp);
        }
    }

    /// An entry was removed.
    pub(super) fn removed(&mut self, hash: &str) {
        self.note(&Arc::from(hash));
        if let Some(recency) = &mut self.recency {
            recency.remove(hash);
        }
    }

    /// The entry to evict next, if `spec` allows no more than there would be without it.
    pub(super) fn victim(&self, spec: &Spec) -> Option<Arc<str>> {
        let recency = self.recency.as_ref()?;
        let over = |limit: Option<u64>, value| limit.is_some_and(|limit| value > limit);
        if over(spec.max_entries, recency.len()) || over(spec.max_bytes, recency.bytes()) {
            return recency.least();
        }
        None
    }
}

/// What the order of use keeps of a row.
pub(super) fn stamp_of(hash: &str, row: &CacheRow<'_>) -> Stamp {
    Stamp {
        expires_at_ms: row.expires_at_ms,
        stored_at_ms: row.stored_at_ms,
        bytes: entry_bytes(hash, row.json),
    }
}

/// What an entry counts for in `max_bytes`.
pub(super) fn entry_bytes(hash: &str, json: &[u8]) -> u64 {
    (hash.len() + json.len()) as u64
}

/// Reads again what an earlier transaction may or may not have changed.
fn confirm(
    recency: &mut Recency,
    rows: &mut dyn Reader,
    spec: &Spec,
    unconfirmed: Vec<(Arc<str>, Option<u64>)>,
) -> Result<()> {
    let now_ms = rows.now_ms();
    for (hash, tick) in unconfirmed {
        let bytes = rows.get(Table::CACHE, &entry_key(&spec.prefix, &hash))?;
        let row = bytes.as_ref().map(|bytes| CacheRow::decode(bytes)).transpose()?;
        match row.filter(|row| row.is_live(now_ms)) {
            Some(row) => {
                let stamp = stamp_of(&hash, &row);
                recency.restore(hash, stamp, tick);
            }
            None => recency.remove(&hash),
        }
    }
    Ok(())
}

/// Reads the whole cache: whatever was stored first counts as used first.
fn load(rows: &mut dyn Reader, spec: &Spec) -> Result<Recency> {
    let now_ms = rows.now_ms();
    let mut found: Vec<(Arc<str>, Stamp)> = Vec::new();
    let mut entries = RowCursor::prefix(Table::CACHE, &spec.prefix);
    while let Some((key, bytes)) = entries.next(rows)? {
        let hash = hash_in(Table::CACHE, &spec.prefix, &key)?;
        let row = CacheRow::decode(&bytes)?;
        if row.is_live(now_ms) {
            found.push((hash.into(), stamp_of(hash, &row)));
        }
    }
    found.sort_by_key(|(_, stamp)| stamp.stored_at_ms);
    let mut recency = Recency::default();
    for (hash, stamp) in found {
        recency.insert(hash, stamp);
    }
    let _ = recency.advance(now_ms);
    Ok(recency)
}
