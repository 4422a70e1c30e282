//! Which cache an operation is on, and what limits it keeps.

use super::row::{CACHE_ROW_OVERHEAD, entry_key, prefix_of};
use super::state::{CacheState, CacheStates, ChangedCaches};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::limits::{DEFAULT_MAX_ENTRY_BYTES, MAX_KEY_LEN, in_memory};
use crate::stores::frame::FrameBudget;
use crate::stores::length::check_len;
use std::sync::Arc;

/// A named cache, seen through the options of one handle.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    name_len: usize,
    pub(crate) prefix: Arc<[u8]>,
    pub(crate) state: Arc<CacheState>,
    /// Where the cache is listed when a transaction changes it.
    pub(super) changed: Arc<ChangedCaches>,
    max_row_bytes: usize,
    max_frame_bytes: usize,
    pub(crate) max_entry_bytes: usize,
    pub(crate) max_entries: Option<u64>,
    pub(crate) max_bytes: Option<u64>,
}

impl Spec {
    /// The cache called `name` of the room that `engine` runs, with the default options.
    pub(crate) fn new(engine: &Engine, caches: &CacheStates, name: &str) -> Self {
        let states = (caches.get(name), Arc::clone(caches.changed()));
        Self::of_state(name, states, engine.max_row_bytes(), engine.max_frame_bytes())
    }

    pub(super) fn of_state(
        name: &str,
        (state, changed): (Arc<CacheState>, Arc<ChangedCaches>),
        max_row_bytes: usize,
        max_frame_bytes: usize,
    ) -> Self {
        Self {
            name_len: name.len(),
            prefix: prefix_of(name).into(),
            state,
            changed,
            max_row_bytes,
            max_frame_bytes,
            max_entry_bytes: in_memory(DEFAULT_MAX_ENTRY_BYTES).min(ceiling(max_row_bytes)),
            max_entries: None,
            max_bytes: None,
        }
    }

    /// Refuses a maximum of zero, and one that no log segment can hold.
    pub(crate) fn set_max_entry_bytes(&mut self, max_entry_bytes: u64) -> Result<()> {
        let ceiling = ceiling(self.max_row_bytes) as u64;
        if !(1..=ceiling).contains(&max_entry_bytes) {
            return Err(Error::InvalidConfig(format!(
                "max_entry_bytes is {max_entry_bytes}; it must be 1 to {ceiling}, which is what a segment of this \
                 room's log can hold (open the room with a greater log_capacity for more)"
            )));
        }
        self.max_entry_bytes = in_memory(max_entry_bytes);
        Ok(())
    }

    /// Whether a set through this handle may evict.
    pub(crate) fn is_limited(&self) -> bool {
        self.max_entries.is_some() || self.max_bytes.is_some()
    }

    /// Refuses a cache whose name is too long to be one.
    pub(crate) fn check_name(&self) -> Result<()> {
        let (size, limit) = (self.name_len as u64, MAX_KEY_LEN as u64);
        if size > limit {
            return Err(Error::TooLarge { what: "the name of the cache", size, limit });
        }
        Ok(())
    }

    /// The key of the entry under `hash`.
    pub(crate) fn key(&self, hash: &str) -> Result<Vec<u8>> {
        self.check_name()?;
        check_len("the hash", hash)?;
        Ok(entry_key(&self.prefix, hash))
    }

    /// What one transaction may stage.
    pub(crate) fn frame_budget(&self) -> FrameBudget {
        FrameBudget::of_frame(self.max_frame_bytes)
    }
}

/// The most bytes of JSON that fit in a row of `max_row_bytes`.
fn ceiling(max_row_bytes: usize) -> usize {
    max_row_bytes.saturating_sub(CACHE_ROW_OVERHEAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(max_row_bytes: usize) -> Spec {
        Spec::of_state("name", Default::default(), max_row_bytes, max_row_bytes)
    }

    #[test]
    fn the_default_maximum_shrinks_to_a_segment_and_an_explicit_one_must_fit() {
        assert_eq!(spec(100 << 20).max_entry_bytes as u64, DEFAULT_MAX_ENTRY_BYTES);
        let ceiling = 1_000 - CACHE_ROW_OVERHEAD;
        let mut small = spec(1_000);
        assert_eq!(small.max_entry_bytes, ceiling);
        let most = ceiling as u64;
        for (maximum, fits) in
            [(0, false), (1, true), (most, true), (most + 1, false), (u64::MAX, false)]
        {
            let answer = small.set_max_entry_bytes(maximum);
            assert_eq!(answer.is_ok(), fits, "{maximum}");
            assert!(fits || matches!(answer, Err(Error::InvalidConfig(_))));
        }
    }

    #[test]
    fn a_name_or_hash_over_the_limit_is_too_large() {
        let long = "n".repeat(MAX_KEY_LEN + 1);
        let named = Spec::of_state(&long, Default::default(), 1_000, 1_000);
        assert!(matches!(named.key("h"), Err(Error::TooLarge { .. })));
        assert!(matches!(spec(1_000).key(&long), Err(Error::TooLarge { .. })));
        assert!(spec(1_000).key(&long[1..]).is_ok());
    }
}
