//! What a history says, whatever its rows say it with: so an export of it outlives their format.

use super::{History, HistoryId, Mark, damaged, decode_row_key, row_key};
use crate::codec;
use crate::engine::access::Reader;
use crate::engine::cursor::RowCursor;
use crate::error::Result;
use crate::tables::Table;
use std::ops::Bound;

/// How many requests were made in one millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Requests {
    /// In milliseconds since the Unix epoch.
    pub(crate) at_ms: u64,
    /// At least one.
    pub(crate) count: u64,
}

impl History {
    /// The time of the last request, when there was one and none may still count.
    pub(crate) fn idle_since_ms(&self) -> Option<u64> {
        self.last_ms().filter(|_| self.is_empty())
    }

    /// Every part of it, for a dump of rows.
    pub(crate) fn to_json(self) -> serde_json::Value {
        let first = self
            .first
            .map(|first| serde_json::json!({ "time_ms": first.ms, "number": first.number }));
        let (epoch, time_ms) = self.swept_to;
        serde_json::json!({
            "epoch": self.epoch, "next": self.next, "last_ms": self.last_ms, "first": first,
            "swept_to": { "epoch": epoch, "time_ms": time_ms },
        })
    }

    /// A history without requests that may still count. The last one was made at `since_ms`, if
    /// there was any.
    pub(crate) fn idle(since_ms: Option<u64>) -> Self {
        let mut idle = since_ms.map_or_else(Self::default, |last_ms| Self {
            next: 1,
            last_ms,
            ..Self::default()
        });
        // It has no rows, so there is nothing to remove.
        idle.swept_to = idle.garbage_end();
        idle
    }

    /// The requests that may still count, from the first one after `after_ms` on, in up to `limit`
    /// different milliseconds.
    pub(crate) fn requests(
        &self,
        rows: &mut dyn Reader,
        place: HistoryId,
        after_ms: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Requests>> {
        let Some(first) = self.first else { return Ok(Vec::new()) };
        let from = row_key(place, self.epoch, after_ms.unwrap_or(first.ms));
        let from = if after_ms.is_some() {
            Bound::Excluded(from.as_slice())
        } else {
            Bound::Included(from.as_slice())
        };
        let to = row_key(place, self.epoch, self.last_ms);
        // One more, because a row tells how many requests came before it.
        let found = RowCursor::range(Table::RATE_LIMIT_REQUEST, from, Bound::Included(&to))
            .up_to(limit.saturating_add(1))
            .collect(rows)?;
        let marks = found.iter().map(|(key, value)| {
            let number = codec::decode_row(Table::RATE_LIMIT_REQUEST.name(), value)?;
            Ok(Mark { ms: decode_row_key(key)?.1, number })
        });
        let marks = marks.collect::<Result<Vec<_>>>()?;
        if after_ms.is_none() && marks.first() != Some(&first) {
            return Err(damaged("the row of a window's first request is missing"));
        }
        let ends = marks.iter().skip(1).map(|mark| mark.number).chain([self.next]);
        let counted = marks.iter().zip(ends).take(limit).map(|(mark, end)| {
            let count = end.checked_sub(mark.number).filter(|count| *count > 0);
            let count =
                count.ok_or_else(|| damaged("requests that are not numbered in their order"))?;
            Ok(Requests { at_ms: mark.ms, count })
        });
        counted.collect()
    }

    /// Adds requests behind all others of a history that [`idle`](Self::idle) made, and answers the
    /// row for them. An error says what is wrong with them, and leaves the history as it was.
    pub(crate) fn append(
        &mut self,
        place: HistoryId,
        requests: Requests,
    ) -> Result<(Vec<u8>, Vec<u8>), &'static str> {
        let Requests { at_ms, count } = requests;
        if count == 0 {
            return Err("a count is 0");
        }
        if self.is_empty() && self.next > 0 {
            return Err("the window is idle, so it has no requests");
        }
        if !self.is_empty() && at_ms <= self.last_ms {
            return Err("the times do not rise");
        }
        let next =
            self.next.checked_add(count).ok_or("there are more requests than can be counted")?;
        let value = codec::encode(&self.next).map_err(|_| "a count cannot be encoded")?;
        let first = *self.first.get_or_insert(Mark { ms: at_ms, number: self.next });
        self.swept_to = (self.epoch, first.ms);
        self.next = next;
        self.last_ms = at_ms;
        Ok((row_key(place, self.epoch, at_ms), value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::access::Writer;
    use crate::stores::map_tx::MapTx;
    use proptest::prelude::*;

    const PLACE: HistoryId = HistoryId { id: 7, lane: 1 };

    fn all(history: &History, tx: &mut MapTx, place: HistoryId, limit: usize) -> Vec<Requests> {
        let (mut all, mut after_ms) = (Vec::new(), None);
        loop {
            let page = history.requests(tx, place, after_ms, limit).unwrap();
            after_ms = page.last().map(|requests| requests.at_ms);
            all.extend_from_slice(&page);
            if page.len() < limit {
                return all;
            }
        }
    }

    fn copy(history: &History, requests: &[Requests], place: HistoryId, tx: &mut MapTx) -> History {
        let mut copy = History::idle(history.idle_since_ms());
        for &requests in requests {
            let (key, value) = copy.append(place, requests).unwrap();
            tx.put(Table::RATE_LIMIT_REQUEST, &key, value);
        }
        copy
    }

    proptest! {
        #[test]
        fn a_copy_says_the_same_and_goes_on_the_same(
            calls in prop::collection::vec((0u64..12, 0u8..12), 1..60), limit in 1usize..5, window_ms in 1u64..40,
        ) {
            let (mut tx, mut history) = (MapTx::at(100), History::default());
            for (pause_ms, call) in calls {
                tx.now_ms += pause_ms;
                match call {
                    0 => history.reset(),
                    1..4 => history.forget(&mut tx, PLACE, window_ms).unwrap(),
                    _ => history.record(&mut tx, PLACE).unwrap(),
                }
            }
            let requests = all(&history, &mut tx, PLACE, limit);
            let other = HistoryId { id: 8, lane: 0 };
            let mut copy = copy(&history, &requests, other, &mut tx);
            prop_assert_eq!(all(&copy, &mut tx, other, limit), requests);
            prop_assert_eq!(copy.idle_since_ms(), history.idle_since_ms());
            for pause_ms in [0, 1, window_ms, 3] {
                tx.now_ms += pause_ms;
                prop_assert_eq!(copy.last_ms(), history.last_ms());
                prop_assert_eq!(
                    copy.count(&mut tx, other, window_ms).unwrap(),
                    history.count(&mut tx, PLACE, window_ms).unwrap()
                );
                for (history, place) in [(&mut history, PLACE), (&mut copy, other)] {
                    history.forget(&mut tx, place, window_ms).unwrap();
                    history.record(&mut tx, place).unwrap();
                }
            }
        }
    }

    #[test]
    fn what_is_no_history_is_refused() {
        let mut idle = History::idle(Some(5));
        assert!(idle.append(PLACE, Requests { at_ms: 9, count: 1 }).is_err());
        let mut history = History::idle(None);
        assert!(history.append(PLACE, Requests { at_ms: 9, count: 0 }).is_err());
        history.append(PLACE, Requests { at_ms: 9, count: 1 }).unwrap();
        let before = history;
        for (at_ms, count) in [(9, 1), (8, 1), (10, u64::MAX)] {
            assert!(history.append(PLACE, Requests { at_ms, count }).is_err());
        }
        assert_eq!(history, before);
    }

    #[test]
    fn a_missing_row_is_damage() {
        let (mut tx, mut history) = (MapTx::at(100), History::default());
        history.record(&mut tx, PLACE).unwrap();
        tx.now_ms += 1;
        history.record(&mut tx, PLACE).unwrap();
        tx.delete(Table::RATE_LIMIT_REQUEST, &row_key(PLACE, 0, 100));
        assert!(history.requests(&mut tx, PLACE, None, 9).is_err());
    }
}
