//! What the handles of one cache share in memory: the order of use, and counters.
//!
//! The order of use is not in the log, so that a hit writes nothing. It is read from the rows when
//! a handle with a limit is first used, and follows every change from then on.
//!
//! # Invariants
//! 1. The order changes under the engine's serial lock only, so it sees changes in their order.
//!    Hits are noted apart, and are taken over by the next change.
//! 2. Between two transactions the order agrees with the committed rows. While a transaction is
//!    under way it agrees with what that transaction has staged. The commit hook tells how the
//!    transaction ended: what an aborted one changed is undone, and its counts are dropped.
//! 3. A cache whose order or counts a transaction has changed is listed in [`ChangedCaches`] until
//!    the transaction ends.

use super::content::ValueContent;
use super::recency::{Recency, RecencyEntry, Stamp};
use super::row::{CacheRow, hash_in};
use crate::engine::access::Reader;
use crate::engine::cursor::RowCursor;
use crate::engine::{HeldInterest, Interest};
use crate::error::Result;
use crate::stores::named::Named;
use crate::sync::plain::{Mutex, MutexGuard};
use crate::tables::Table;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How many hits are remembered: until the next change, and until the end of a transaction.
const MAX_HITS: usize = 4_096;

/// How many notes of an ended transaction keep their memory for the next one.
const KEPT_NOTES: usize = 1_024;

/// The state that all handles of one cache share.
#[derive(Debug, Default)]
pub(crate) struct CacheState {
    /// Whether the order of use was ever needed. Until then it costs nothing.
    tracked: AtomicBool,
    order: Mutex<UseOrder>,
    /// Hashes that were hit since the last change, oldest first.
    hits: Mutex<Vec<Box<str>>>,
    pub(super) counters: CacheCounters,
}

/// What happened since the room was opened. Of changes, those count that were kept.
#[derive(Debug, Default)]
pub(super) struct CacheCounters {
    pub(super) hits: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) evictions: AtomicU64,
    pub(super) oversized: AtomicU64,
}

/// Adds to a counter.
pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// The order of use, and what the transaction under way did to it.
#[derive(Debug, Default)]
pub(super) struct UseOrder {
    recency: Option<Recency>,
    /// Whether a transaction is under way that has changed something here.
    in_transaction: bool,
    /// What the entries were that it changed, in the order of its changes.
    undo: Vec<(Arc<str>, Option<RecencyEntry>)>,
    /// Whether the order was read from the rows in it, which shows what it had staged.
    loaded: bool,
    /// The hits that were taken over in it: they are uses whether or not it is kept.
    hits: Vec<Box<str>>,
    evictions: u64,
    oversized: u64,
}

impl CacheState {
    /// Notes a hit, if the order of use may ever be needed. `limited` says whether a set through
    /// the handle may evict.
    pub(super) fn hit(&self, limited: bool, hash: &str) {
        count(&self.counters.hits, 1);
        if limited {
            // What is stored from now on must take its place behind this hit.
            self.tracked.store(true, Ordering::Release);
        } else if !self.tracked.load(Ordering::Acquire) {
            return;
        }
        let mut hits = self.hits.lock();
        if hits.len() >= MAX_HITS {
            // A writer takes the other lock first. When it has it, the older half of the hits is
            // forgotten instead.
            match self.order.try_lock() {
                Some(mut order) if order.recency.is_some() => order.take_over(&mut hits),
                _ => drop(hits.drain(..MAX_HITS / 2)),
            }
        }
        hits.push(hash.into());
    }

    /// Forgets the order of use: it is read from the rows again when it is needed.
    pub(super) fn forget_order(&self) {
        self.order.lock().forget();
    }

    /// Whether the next change through a handle reads the whole cache, if a set through it may
    /// evict.
    pub(super) fn will_load(&self, limited: bool) -> bool {
        limited && self.order.try_lock().is_some_and(|order| order.recency.is_none())
    }

    /// The order of use, for an operation that is about to change rows in the transaction under
    /// way; `None` when the order is not needed. `prefix` is what the keys of the cache begin with.
    pub(super) fn begin(
        self: &Arc<Self>,
        rows: &mut dyn Reader,
        prefix: &[u8],
        limited: bool,
        changed: &ChangedCaches,
    ) -> Result<Option<MutexGuard<'_, UseOrder>>> {
        if !limited && !self.tracked.load(Ordering::Acquire) {
            return Ok(None);
        }
        let mut order = self.enlist(changed);
        if !order.recency.as_mut().is_some_and(|recency| recency.advance(&rows.moment())) {
            order.forget();
            order.recency = Some(load(rows, prefix)?);
            order.loaded = true;
        }
        self.tracked.store(true, Ordering::Release);
        order.take_over(&mut self.hits.lock());
        Ok(Some(order))
    }

    /// The transaction under way has not stored a value because it is too large.
    pub(super) fn count_oversized(self: &Arc<Self>, changed: &ChangedCaches) {
        self.enlist(changed).oversized += 1;
    }

    fn enlist(self: &Arc<Self>, changed: &ChangedCaches) -> MutexGuard<'_, UseOrder> {
        let mut order = self.order.lock();
        if !order.in_transaction {
            order.in_transaction = true;
            changed.add(self);
        }
        order
    }

    /// The transaction under way has ended.
    fn end(&self, is_kept: bool) {
        let mut order = self.order.lock();
        if is_kept {
            count(&self.counters.evictions, order.evictions);
            count(&self.counters.oversized, order.oversized);
        } else if order.loaded {
            // What was read may be of this transaction. It is read again, and the hits that it
            // knew count then.
            order.recency = None;
            let mut hits = self.hits.lock();
            order.hits.append(&mut hits);
            std::mem::swap(&mut order.hits, &mut hits);
        } else {
            order.roll_back();
        }
        order.end();
    }
}

impl UseOrder {
    fn take_over(&mut self, hits: &mut Vec<Box<str>>) {
        let Some(recency) = &mut self.recency else { return };
        hits.iter().for_each(|hash| recency.touch(hash));
        if self.in_transaction {
            if self.hits.len() >= MAX_HITS {
                self.hits.drain(..MAX_HITS / 2);
            }
            self.hits.append(hits);
        } else {
            hits.clear();
        }
    }

    /// Remembers what an entry was that the transaction under way changes.
    fn note(&mut self, hash: &Arc<str>) {
        // An order that is forgotten when the transaction is aborted is not rolled back.
        if let Some(recency) = self.recency.as_ref().filter(|_| !self.loaded) {
            self.undo.push((Arc::clone(hash), recency.get(hash)));
        }
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

    /// The entry to evict next, if there are more entries or bytes than the limits allow.
    pub(super) fn victim(
        &self,
        max_entries: Option<u64>,
        max_bytes: Option<u64>,
    ) -> Option<Arc<str>> {
        let recency = self.recency.as_ref()?;
        let over = |limit: Option<u64>, value| limit.is_some_and(|limit| value > limit);
        if over(max_entries, recency.len()) || over(max_bytes, recency.bytes()) {
            return recency.least();
        }
        None
    }

    /// A live entry was removed because of a limit.
    pub(super) fn count_eviction(&mut self) {
        self.evictions += 1;
    }

    /// Makes every entry what it was before the transaction under way, and notes the uses
    /// meanwhile.
    fn roll_back(&mut self) {
        let Some(recency) = &mut self.recency else { return };
        for (hash, was) in self.undo.drain(..).rev() {
            recency.restore(hash, was);
        }
        self.hits.iter().for_each(|hash| recency.touch(hash));
    }

    fn forget(&mut self) {
        self.recency = None;
        self.undo.clear();
    }

    /// Clears the notes, for the next transaction.
    fn end(&mut self) {
        self.undo.clear();
        self.undo.shrink_to(KEPT_NOTES);
        self.hits.clear();
        self.hits.shrink_to(KEPT_NOTES);
        (self.in_transaction, self.loaded, self.evictions, self.oversized) = (false, false, 0, 0);
    }
}

/// The caches that the transaction under way has changed. They are told when it has ended.
#[derive(Debug)]
pub(crate) struct ChangedCaches {
    interest: Interest,
    listed: Mutex<ListedCaches>,
}

#[derive(Debug, Default)]
struct ListedCaches {
    states: Vec<Arc<CacheState>>,
    /// Held while there are any, so that the hook tells how the transaction ends.
    interest: Option<HeldInterest>,
}

impl ChangedCaches {
    fn new(interest: Interest) -> Self {
        Self { interest, listed: Mutex::default() }
    }

    fn add(&self, state: &Arc<CacheState>) {
        let mut listed = self.listed.lock();
        listed.states.push(Arc::clone(state));
        listed.interest.get_or_insert_with(|| self.interest.hold());
    }

    /// Tells every listed cache that the transaction under way has ended.
    pub(crate) fn end(&self, is_kept: bool) {
        let ended = std::mem::take(&mut *self.listed.lock());
        ended.states.iter().for_each(|state| state.end(is_kept));
    }
}

#[cfg(test)]
impl CacheState {
    /// The entries in the order of their last use, with all hits so far; empty when it is not
    /// known.
    pub(super) fn in_order(&self) -> Vec<String> {
        let mut order = self.order.lock();
        order.take_over(&mut self.hits.lock());
        order.recency.iter().flat_map(Recency::in_order).map(Into::into).collect()
    }
}

#[cfg(test)]
impl Default for ChangedCaches {
    fn default() -> Self {
        Self::new(Interest::default())
    }
}

/// What the caches of a room have in memory.
#[derive(Debug)]
pub(crate) struct CacheStates {
    by_name: Named<CacheState>,
    changed: Arc<ChangedCaches>,
}

impl CacheStates {
    /// Those of a room whose transactions are shown while `interest` is held.
    pub(crate) fn new(interest: Interest) -> Self {
        Self { by_name: Named::default(), changed: Arc::new(ChangedCaches::new(interest)) }
    }

    /// The state of the cache called `name`.
    pub(super) fn get(&self, name: &str) -> Arc<CacheState> {
        self.by_name.get(name)
    }

    /// The caches that the transaction under way has changed.
    pub(crate) fn changed(&self) -> &Arc<ChangedCaches> {
        &self.changed
    }

    /// Lets the order of use of the cache called `name` be read from the rows again, because some
    /// were written past its operations. Only under the engine's serial lock.
    pub(crate) fn forget_order(&self, name: &str) {
        if let Some(state) = self.by_name.peek(name) {
            state.forget_order();
        }
    }
}

/// What the order of use keeps of a row.
pub(super) fn stamp_of(hash: &str, row: &CacheRow<'_>) -> Stamp {
    Stamp {
        expires_at: row.expires_at,
        stored_at_ms: row.stored_at_ms,
        bytes: entry_bytes(hash, row.content),
    }
}

/// What an entry counts for in `max_bytes`.
pub(super) fn entry_bytes(hash: &str, content: ValueContent<'_>) -> u64 {
    (hash.len() + content.len()) as u64
}

/// Reads the whole cache. The entry that was stored first counts as used first.
fn load(rows: &mut dyn Reader, prefix: &[u8]) -> Result<Recency> {
    let now = rows.moment();
    let mut found: Vec<(Arc<str>, Stamp)> = Vec::new();
    let mut entries = RowCursor::prefix(Table::CACHE, prefix);
    while let Some((key, bytes)) = entries.next(rows)? {
        let hash = hash_in(Table::CACHE, prefix, &key)?;
        let row = CacheRow::decode(&bytes)?;
        if row.is_live(&now) {
            found.push((hash.into(), stamp_of(hash, &row)));
        }
    }
    found.sort_by_key(|(_, stamp)| stamp.stored_at_ms);
    let mut recency = Recency::default();
    for (hash, stamp) in found {
        recency.insert(hash, stamp);
    }
    let _ = recency.advance(&now);
    Ok(recency)
}
