//! Who waits for a row to change.
//!
//! # Why no waiter misses a change
//! A watcher looks at the row and is listed at one place of the serial order, under the serial
//! lock. Every transaction after it tells the list of each change it made to the row, in order,
//! also of one that it overwrote itself.
//!
//! # Why every watcher sees the same order
//! Watchers are told of a change, and of a deadline that has passed, under the serial lock. So what
//! ends the wait is what came first in the serial order.

use crate::durability::Durability;
use crate::engine::kernel::time_line::Deadline;
use crate::engine::kernel::{
    CommitObserver, CommittedRows, HeldInterest, Interest, Kernel, Snapshot, Wakeup,
};
use crate::engine::workers::{TimedEvent, Timer, TimerEntry};
use crate::error::{Error, Result};
use crate::pending::{Event, EventOutcome, Pending};
use crate::process::HomeProcess;
use crate::sync::Mutex;
use crate::tables::{Table, Value};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Decides about the row as it is now: `None` when the wait goes on, or else what is left to the
/// waiter.
pub(crate) type Judge = Arc<dyn Fn(Option<&Value>) -> Option<Option<Value>> + Send + Sync>;

/// What a read that may have to wait found.
pub(crate) enum Found<R> {
    /// The answer.
    Now(R),
    /// No answer before the row changes in the eyes of the judge, or the deadline
    /// passes, which leaves no row.
    Later(Judge, Option<Deadline>),
}

/// The lists of all watchers, by the row they wait for.
pub(in crate::engine) struct RowWaits {
    lists: Mutex<Lists>,
    /// Held once for each watcher.
    interest: Interest,
    /// A fork of this process takes nothing off the lists.
    home: HomeProcess,
}

#[derive(Default)]
struct Lists {
    by_row: BTreeMap<(Table, Vec<u8>), Vec<RowWait>>,
    next_id: u64,
    closed: bool,
}

struct RowWait {
    id: u64,
    judge: Judge,
    event: Arc<Event>,
    _interest: HeldInterest,
}

impl RowWaits {
    pub(in crate::engine) fn new(interest: Interest) -> Self {
        Self { lists: Mutex::default(), interest, home: HomeProcess::current() }
    }

    /// Lists a watcher; after closing, its event is over instead. The caller holds the serial lock.
    fn add(&self, row: (Table, Vec<u8>), judge: Judge) -> (Arc<Event>, u64) {
        let event = Arc::new(Event::default());
        let mut lists = self.lists.lock();
        let id = lists.next_id;
        lists.next_id += 1;
        if lists.closed {
            event.settle(EventOutcome::default());
        } else {
            let (event, _interest) = (Arc::clone(&event), self.interest.hold());
            let watch = RowWait { id, judge, event, _interest };
            lists.by_row.entry(row).or_default().push(watch);
        }
        (event, id)
    }

    fn remove(&self, row: &(Table, Vec<u8>), id: u64) {
        if self.home.has_forked() {
            return;
        }
        let mut lists = self.lists.lock();
        let Some(watches) = lists.by_row.get_mut(row) else { return };
        let removed =
            watches.iter().position(|watch| watch.id == id).map(|at| watches.swap_remove(at));
        if watches.is_empty() {
            lists.by_row.remove(row);
        }
        drop(lists);
        drop(removed);
    }

    /// How many watchers wait for rows of `table` from `from` to `to`.
    pub(in crate::engine) fn count(&self, table: Table, from: &[u8], to: Option<&[u8]>) -> usize {
        let from = Bound::Included((table, from.to_vec()));
        let lists = self.lists.lock();
        let rows = lists.by_row.range((from, Bound::Unbounded));
        rows.take_while(|((of, key), _)| *of == table && to.is_none_or(|to| key.as_slice() < to))
            .map(|(_, watches)| watches.len())
            .sum()
    }
}

impl CommitObserver for RowWaits {
    /// Decides the events that the changed rows end.
    fn committed(&self, rows: CommittedRows<'_>) -> Vec<Wakeup> {
        let mut ended = Vec::new();
        let mut changes = rows.waited_for().peekable();
        if changes.peek().is_none() {
            return ended;
        }
        let mut lists = self.lists.lock();
        for (at, row) in changes {
            let Some(watches) = lists.by_row.get_mut(at) else { continue };
            watches.retain(|watch| {
                let Some(left) = (watch.judge)(row) else { return true };
                watch.event.settle(EventOutcome { row: left, lsn: rows.lsn });
                ended.push(Wakeup::Event(Arc::clone(&watch.event)));
                false
            });
            if watches.is_empty() {
                lists.by_row.remove(at);
            }
        }
        ended
    }

    /// Decides every event with nothing, because no transaction will end it any more.
    fn closed(&self) -> Vec<Wakeup> {
        let by_row = {
            let mut lists = self.lists.lock();
            lists.closed = true;
            std::mem::take(&mut lists.by_row)
        };
        let events: Vec<_> = by_row.into_values().flatten().map(|watch| watch.event).collect();
        events.iter().for_each(|event| event.settle(EventOutcome::default()));
        events.into_iter().map(Wakeup::Event).collect()
    }
}

impl std::fmt::Debug for RowWaits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RowWaits").field("rows", &self.lists.lock().by_row.len()).finish()
    }
}

/// Keeps a watcher on its lists.
struct Watching {
    row_waits: Arc<RowWaits>,
    row: (Table, Vec<u8>),
    id: u64,
    _deadline: Option<TimerEntry>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.row_waits.remove(&self.row, self.id);
    }
}

/// A look without an answer, and the position that it depends on.
struct Later {
    judge: Judge,
    deadline: Option<Deadline>,
    lsn: u64,
}

enum Looked<R, E> {
    Now(Pending<R, E>),
    Later(Later),
}

enum Listing<R, E> {
    Now(Pending<R, E>),
    Later(Arc<Event>, Watching),
}

/// The row that is waited for, and how.
pub(in crate::engine) struct WaitedRow<'a> {
    pub(in crate::engine) durability: Durability,
    pub(in crate::engine) table: Table,
    pub(in crate::engine) key: &'a [u8],
}

/// Reads a row through `look`, and when it finds no answer yet, waits until there is one, which
/// `finish` makes of what the judge leaves.
pub(in crate::engine) fn await_row<R, E: From<Error>>(
    (kernel, row_waits, timer): (&Kernel, &Arc<RowWaits>, &Arc<Timer>),
    row: WaitedRow<'_>,
    look_at: impl Fn(&mut Snapshot) -> Result<Found<R>, E>,
    finish: fn(Option<Value>) -> Result<R, E>,
) -> Pending<R, E> {
    let WaitedRow { durability, table, key } = row;
    assert!(table.is_waited_for(), "transactions do not tell of rows of this table");
    // Most calls find an answer, and take no lock for it.
    match look(kernel, &look_at, durability) {
        Ok(Looked::Now(answer)) => return answer,
        Ok(Looked::Later(_)) => {}
        Err(error) => return Pending::ready(Err(error.into())),
    }
    let listing =
        look_and_list((kernel, row_waits, timer), &look_at, durability, (table, key.to_vec()));
    match listing {
        Ok(Listing::Now(answer)) => answer,
        Ok(Listing::Later(event, watching)) => {
            Pending::on_event(event, Box::new(watching), finish, kernel.log(), durability)
        }
        Err(error) => Pending::ready(Err(error.into())),
    }
}

fn look<R, E: From<Error>>(
    kernel: &Kernel,
    look_at: &impl Fn(&mut Snapshot) -> Result<Found<R>, E>,
    durability: Durability,
) -> Result<Looked<R, E>> {
    let (found, lsn) = {
        let open = kernel.hold_open()?;
        let mut rows = open.snapshot();
        (look_at(&mut rows), rows.depends_on_lsn())
    };
    Ok(match found {
        Ok(Found::Later(judge, deadline)) => Looked::Later(Later { judge, deadline, lsn }),
        Ok(Found::Now(answer)) => Looked::Now(kernel.answer_of_read(Ok(answer), lsn, durability)),
        Err(error) => Looked::Now(kernel.answer_of_read(Err(error), lsn, durability)),
    })
}

/// Looks again at one place of the serial order, and lists a watcher there if there is still no
/// answer.
fn look_and_list<R, E: From<Error>>(
    (kernel, row_waits, timer): (&Kernel, &Arc<RowWaits>, &Arc<Timer>),
    look_at: &impl Fn(&mut Snapshot) -> Result<Found<R>, E>,
    durability: Durability,
    row: (Table, Vec<u8>),
) -> Result<Listing<R, E>> {
    let (event, mut watching, timed) = {
        let _turn = kernel.take_turn()?;
        let _serial = kernel.lock_serial();
        let later = match look(kernel, look_at, durability)? {
            Looked::Now(answer) => return Ok(Listing::Now(answer)),
            Looked::Later(later) => later,
        };
        let (event, id) = row_waits.add(row.clone(), later.judge);
        let watching = Watching { row_waits: Arc::clone(row_waits), row, id, _deadline: None };
        let timed = TimedEvent { event: Arc::clone(&event), lsn: later.lsn };
        // The entry that is waited for was made in this opening, whose epoch is never corrected.
        let now = kernel.moment();
        let at_ms =
            later.deadline.map(|deadline| now.line_ms().saturating_add(now.left_until(deadline)));
        (event, watching, at_ms.map(|at_ms| (at_ms, timed)))
    };
    if let Some((at_ms, timed)) = timed {
        watching._deadline = Some(timer.add(at_ms, timed)?);
    }
    Ok(Listing::Later(event, watching))
}
