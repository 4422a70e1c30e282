//! The line of an open room: its clock, its state, and what is still to be written down.

use super::decide::{OpenLine, WRITE_EVERY_MS};
use super::gap::ClosedGap;
use super::moment::{Correction, Moment};
use super::reading::ClockReading;
use super::rows::{LINE_KEY, gap_key, load};
use crate::clock::Clock;
use crate::codec;
use crate::engine::kernel::access::Reader;
use crate::error::Result;
use crate::sync::plain::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What is to be written of a line, as it was at one moment.
#[derive(Debug)]
pub(in crate::engine) struct LineRows {
    /// By key; `None` is the absence of a row.
    pub(in crate::engine) rows: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// The gaps that are in the table when the rows are.
    gaps: BTreeMap<u32, ClosedGap>,
    /// How many changes of the line they have.
    changes: u64,
}

/// Finds the newest epoch that a row of a store names, as far as that can be told.
pub(crate) type NewestEpoch = fn(&mut dyn Reader) -> Result<Option<u32>>;

/// How much time of the line at most passes before the maintenance thread of an idle room writes it
/// down.
const WRITE_IDLE_EVERY_MS: u64 = 600_000;

/// The time line of an open room.
#[derive(Debug)]
pub(in crate::engine) struct TimeLine {
    clock: Arc<dyn Clock>,
    /// What the elapsed time is counted from, if that is known.
    origin: Option<[u8; 16]>,
    hold_ms: u64,
    state: RwLock<LineState>,
    /// The newest point that a reading was given. A clock may be anything; the line never falls.
    newest_ms: AtomicU64,
    /// How often something changed that is to be written, other than time passing, and how many of
    /// these changes are written.
    changes: AtomicU64,
    written_changes: AtomicU64,
    /// The point of the line that was last written.
    written_ms: AtomicU64,
}

#[derive(Debug)]
struct LineState {
    line: OpenLine,
    corrections: Option<Arc<[Correction]>>,
    generation: u64,
    /// The gaps that are in the table.
    written_gaps: BTreeMap<u32, ClosedGap>,
}

impl LineState {
    fn share(&mut self) {
        let corrections: Arc<[Correction]> =
            self.line.gaps.iter().map(ClosedGap::correction).collect();
        self.corrections = Some(corrections).filter(|corrections| !corrections.is_empty());
        self.generation += 1;
    }
}

impl TimeLine {
    /// The line of a room that is opened, as far as its `rows` tell.
    pub(in crate::engine) fn open(
        rows: &mut dyn Reader,
        clock: Arc<dyn Clock>,
        origin: Option<[u8; 16]>,
        hold: Duration,
        newest_epoch: NewestEpoch,
    ) -> Result<Self> {
        let (written, gaps) = load(rows)?;
        let now = read(clock.as_ref());
        let line = match written {
            Some(written) => OpenLine::open(&written, gaps.clone(), now, origin),
            None => OpenLine::begin_anew(now, gaps.clone(), newest_epoch(rows)?),
        };
        let written_gaps = gaps.into_iter().map(|gap| (gap.epoch, gap)).collect();
        let newest_ms = AtomicU64::new(line.line_ms(now));
        let mut state = LineState { line, corrections: None, generation: 0, written_gaps };
        state.share();
        Ok(Self {
            clock,
            origin,
            hold_ms: u64::try_from(hold.as_millis()).unwrap_or(u64::MAX),
            state: RwLock::new(state),
            newest_ms,
            changes: AtomicU64::new(1),
            written_changes: AtomicU64::new(0),
            written_ms: AtomicU64::new(0),
        })
    }

    /// Reads the clock: both of its readings, once.
    pub(in crate::engine) fn moment(&self) -> Moment {
        let now = read(self.clock.as_ref());
        let mut state = self.state.read();
        if !state.line.is_as_before(now, self.hold_ms) {
            drop(state);
            self.take_in(now);
            state = self.state.read();
        }
        let line_ms = state.line.line_ms(now);
        let line_ms = self.newest_ms.fetch_max(line_ms, Ordering::Relaxed).max(line_ms);
        let at = (state.line.epoch, line_ms);
        let offset_ms = state.line.wall_offset_ms;
        let trusted = (state.line.trusted, state.line.trusted_offset_ms);
        Moment::new(now, at, offset_ms, trusted, state.corrections.clone(), state.generation)
    }

    #[cold]
    fn take_in(&self, now: ClockReading) {
        let mut state = self.state.write();
        let before = state.line.gaps.clone();
        if state.line.observe(now, self.hold_ms) {
            if state.line.gaps != before {
                state.share();
            }
            self.changes.fetch_add(1, Ordering::Release);
        }
    }

    /// What is to be written with the next transaction, if anything. The caller holds the serial
    /// lock.
    pub(in crate::engine) fn due_rows(&self, now: &Moment) -> Result<Option<LineRows>> {
        let written_ms = self.written_ms.load(Ordering::Relaxed);
        let is_due = now.line_ms().saturating_sub(written_ms) >= WRITE_EVERY_MS;
        if !is_due && !self.has_changed() {
            return Ok(None);
        }
        self.rows_now(now).map(Some)
    }

    /// What there is to write, due or not.
    pub(in crate::engine) fn rows_now(&self, now: &Moment) -> Result<LineRows> {
        self.rows(now, false)
    }

    /// What is to be written when nothing else is: when the room closes.
    pub(in crate::engine) fn last_rows(&self, now: &Moment) -> Result<Option<LineRows>> {
        if self.written_ms.load(Ordering::Relaxed) == 0 {
            return Ok(None);
        }
        self.rows(now, true).map(Some)
    }

    /// Whether a maintenance thread should write the line although there is nothing else to
    /// write.
    pub(in crate::engine) fn wants_writing(&self, now: &Moment) -> bool {
        let written_ms = self.written_ms.load(Ordering::Relaxed);
        written_ms > 0
            && (self.has_changed()
                || now.line_ms().saturating_sub(written_ms) >= WRITE_IDLE_EVERY_MS)
    }

    fn has_changed(&self) -> bool {
        self.changes.load(Ordering::Acquire) != self.written_changes.load(Ordering::Acquire)
    }

    fn rows(&self, now: &Moment, is_closed: bool) -> Result<LineRows> {
        let state = self.state.read();
        let written = state.line.written(now.reading(), self.origin, is_closed);
        let mut rows = vec![(LINE_KEY.to_vec(), Some(codec::encode(&written)?))];
        for gap in &state.line.gaps {
            if state.written_gaps.get(&gap.epoch) != Some(gap) {
                rows.push((gap_key(gap.epoch).to_vec(), Some(codec::encode(gap)?)));
            }
        }
        let is_kept = |epoch| state.line.gaps.iter().any(|gap| gap.epoch == epoch);
        let gone = state.written_gaps.keys().filter(|epoch| !is_kept(**epoch));
        rows.extend(gone.map(|epoch| (gap_key(*epoch).to_vec(), None)));
        let gaps = state.line.gaps.iter().map(|gap| (gap.epoch, *gap)).collect();
        Ok(LineRows { rows, gaps, changes: self.changes.load(Ordering::Acquire) })
    }

    /// The rows were written. The caller still holds the serial lock. What
    /// another thread has noticed since is written with the next rows.
    pub(in crate::engine) fn wrote(&self, written: LineRows, now: &Moment) {
        self.state.write().written_gaps = written.gaps;
        self.written_changes.store(written.changes, Ordering::Release);
        self.written_ms.store(now.line_ms().max(1), Ordering::Relaxed);
    }
}

fn read(clock: &dyn Clock) -> ClockReading {
    ClockReading { wall_ms: clock.now_ms(), elapsed_ms: clock.elapsed_ms() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::engine::kernel::access::{PageSize, RestOfRange, Row, RowPage, RowRange};
    use crate::tables::{Table, Value};

    const DAY: Duration = Duration::from_secs(24 * 3_600);

    /// The table of the line.
    #[derive(Default)]
    struct LineTable(BTreeMap<Vec<u8>, Vec<u8>>);

    impl LineTable {
        fn write(&mut self, written: &LineRows) {
            for (key, value) in &written.rows {
                match value {
                    Some(value) => drop(self.0.insert(key.clone(), value.clone())),
                    None => drop(self.0.remove(key)),
                }
            }
        }

        fn gaps(&mut self) -> Vec<ClosedGap> {
            load(self).unwrap().1
        }

        fn open(&mut self, clock: &Arc<ManualClock>, origin: u8) -> TimeLine {
            let clock = Arc::clone(clock) as Arc<dyn Clock>;
            let hold = Duration::from_secs(600);
            TimeLine::open(self, clock, Some([origin; 16]), hold, |_| Ok(None)).unwrap()
        }
    }

    impl Reader for LineTable {
        fn moment(&self) -> Moment {
            Moment::manual(0)
        }

        fn get(&mut self, _: Table, key: &[u8]) -> Result<Option<Value>> {
            Ok(self.0.get(key).map(|value| Value::from(value.as_slice())))
        }

        fn page(&mut self, range: RowRange<'_>, _: PageSize) -> Result<RowPage> {
            let bounds = (range.from.map(<[u8]>::to_vec), range.to.map(<[u8]>::to_vec));
            let row = |(key, value): (&Vec<u8>, &Vec<u8>)| -> Row {
                (key.clone(), Value::from(value.as_slice()))
            };
            Ok(RowPage { rows: self.0.range(bounds).map(row).collect(), rest: RestOfRange::Empty })
        }
    }

    #[test]
    fn what_another_thread_notices_while_the_line_is_written_is_written_with_the_next_rows() {
        let (clock, mut table) = (Arc::new(ManualClock::new(1_000_000_000)), LineTable::default());
        let line = table.open(&clock, 1);
        let rows = line.last_rows(&line.moment()).unwrap();
        assert!(rows.is_none(), "nothing else was written");
        let now = line.moment();
        let rows = line.rows_now(&now).unwrap();
        table.write(&rows);
        line.wrote(rows, &now);
        // Opened after a day by the wall clock, and after a restart, so that nothing confirms it.
        clock.advance(DAY);
        let line = table.open(&clock, 2);
        let now = line.moment();
        let rows = line.due_rows(&now).unwrap().unwrap();
        table.write(&rows);
        // A reader finds the clock set back by half of it.
        clock.leap(clock.now_ms() - 12 * 3_600_000);
        let half = line.moment();
        line.wrote(rows, &now);
        let believed: Vec<u64> = table.gaps().iter().map(|gap| gap.believed_ms).collect();
        let rows = line.due_rows(&half).unwrap().expect("the change is still to be written");
        table.write(&rows);
        line.wrote(rows, &half);
        let corrected: Vec<u64> = table.gaps().iter().map(|gap| gap.believed_ms).collect();
        assert_eq!((believed, corrected), (vec![24 * 3_600_000], vec![12 * 3_600_000]));
        assert!(line.due_rows(&half).unwrap().is_none());
    }
}
