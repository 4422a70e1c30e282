//! A run of operations on a room and on its model.

use super::calls::{ModelAnswer, call, call_inside};
use super::ops::{self, Ending, ModelOp, Reopening, StoreOp};
use super::reference::{Model, ModelOutcome, Refusal, caller_seconds, encoded_len};
use crate::page::{Cursor, Page};
use crate::storage::sim::SimStorage;
use crate::stores::form_token::FormTokenEntry;
use crate::stores::handoff::{ClaimId, HandoffEntry, HandoffStateStore};
use crate::{Builder, Cloakroom, Error, ManualClock, Transaction};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::Arc;

/// The start of a run, in milliseconds since the Unix epoch. Not a whole second.
const START_MS: u64 = 1_000_000_000_007;

/// Segments of 640 KiB, which a few of the larger states fill.
const LOG_CAPACITY: u64 = 1_280 << 10;

/// A transaction that stages less than this always fits a segment.
const FITS_BYTES: usize = 300_000;

#[derive(Debug)]
enum RunStorage {
    Simulated(SimStorage),
    File(PathBuf),
}

/// An answer that is not awaited yet.
struct Outstanding {
    op: StoreOp,
    expected: ModelOutcome,
    answer: Box<dyn FnOnce() -> ModelAnswer>,
    /// The number of the claim that the model granted.
    claim: Option<usize>,
}

/// Applies operations to a room, and asserts that it answers as its model does.
pub struct ModelRun {
    disk: RunStorage,
    threads: bool,
    clock: Arc<ManualClock>,
    now_ms: u64,
    /// `None` only while it is reopened.
    room: Option<Cloakroom>,
    model: Model,
    /// The claims so far by number. `None` for those whose answer was dropped.
    claims: Vec<Option<ClaimId>>,
    outstanding: Vec<Outstanding>,
    /// The latest time of a sweep, if there was one.
    swept_ms: Option<u64>,
}

/// Why a transaction of several operations was aborted.
#[derive(Debug)]
enum Abandoned {
    Asked,
    Refused(Error),
}

impl From<Error> for Abandoned {
    fn from(error: Error) -> Self {
        Abandoned::Refused(error)
    }
}

/// The payload of a deliberate panic.
struct OnPurpose;

impl std::fmt::Debug for ModelRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelRun")
            .field("disk", &self.disk)
            .field("now_ms", &self.now_ms)
            .finish_non_exhaustive()
    }
}

impl ModelRun {
    /// A new room on a simulated disk, with or without background threads.
    #[must_use]
    pub fn in_memory(threads: bool) -> Self {
        Self::on(RunStorage::Simulated(SimStorage::new(1)), threads)
    }

    /// A room in a file that does not exist yet, with background threads.
    #[must_use]
    pub fn in_file(path: PathBuf) -> Self {
        Self::on(RunStorage::File(path), true)
    }

    fn on(disk: RunStorage, threads: bool) -> Self {
        let clock = Arc::new(ManualClock::new(START_MS));
        let mut run = Self {
            disk,
            threads,
            clock,
            now_ms: START_MS,
            room: None,
            model: Model::default(),
            claims: Vec::new(),
            outstanding: Vec::new(),
            swept_ms: None,
        };
        run.open();
        run
    }

    /// Applies `ops`, and compares everything at the end and again after reopening.
    pub fn check(mut self, ops: &[ModelOp]) {
        for op in ops {
            self.step(op);
        }
        self.settle();
        self.compare(7);
        self.reopen(Reopening::Close);
        self.compare(1_000);
    }

    fn builder(&self) -> Builder {
        // Sweeps are operations, so a caller's clock is behind the room's only while nothing was
        // swept.
        let builder = Cloakroom::builder()
            .log_capacity(LOG_CAPACITY)
            .clock(self.clock.clone())
            .sweep_interval(None);
        if self.threads { builder } else { builder.without_threads() }
    }

    fn open(&mut self) {
        let room = match &self.disk {
            RunStorage::Simulated(storage) => self.builder().open_on(Arc::new(storage.clone())),
            RunStorage::File(path) => self.builder().open(path),
        };
        self.room = Some(room.unwrap());
    }

    fn room(&self) -> &Cloakroom {
        self.room.as_ref().unwrap()
    }

    fn step(&mut self, op: &ModelOp) {
        match op {
            ModelOp::Store(op) => self.store(op),
            ModelOp::Forget(op) => {
                self.store(op);
                if let Some(forgotten) = self.outstanding.pop() {
                    if forgotten.claim.is_some() {
                        self.claims.push(None);
                    }
                    drop(forgotten);
                }
            }
            ModelOp::Together(ops, ending) => self.together(ops, *ending),
            ModelOp::Settle => self.settle(),
            ModelOp::Advance(ms) => {
                self.now_ms += u64::from(*ms);
                self.clock.set(self.now_ms);
            }
            ModelOp::Checkpoint => self.room().checkpoint().unwrap(),
            ModelOp::Sweep => {
                self.room().sweep().unwrap();
                self.swept_ms = Some(self.now_ms);
            }
            ModelOp::Compare(limit) => self.compare(usize::from(*limit).max(1)),
            ModelOp::Reopen(how) => self.reopen(*how),
        }
    }

    /// The operation of a caller whose clock is not behind a sweep: a swept token is gone, also for
    /// callers for whose clock it would be live.
    fn not_behind_a_sweep(&self, op: &StoreOp) -> StoreOp {
        match op {
            StoreOp::Consume { candidates, binding, skew_seconds, grace }
                if self.swept_ms.is_some_and(|swept_ms| {
                    caller_seconds(self.now_ms, *skew_seconds).saturating_mul(1_000) < swept_ms
                }) =>
            {
                // The next whole second after a sweep within a second.
                let ahead = i8::from(!self.now_ms.is_multiple_of(1_000));
                StoreOp::Consume {
                    candidates: candidates.clone(),
                    binding: *binding,
                    skew_seconds: ahead,
                    grace: *grace,
                }
            }
            op => op.clone(),
        }
    }

    /// The claim with the number `nth`. `None` when its answer was dropped.
    fn claim_id(&self, nth: u8) -> Option<ClaimId> {
        match usize::from(nth).checked_rem(self.claims.len()) {
            Some(number) => self.claims[number].clone(),
            None => Some(ClaimId::new(u128::from(nth), "no one's")),
        }
    }

    fn store(&mut self, op: &StoreOp) {
        let op = &self.not_behind_a_sweep(op);
        // The claim is known only when all claims so far are.
        if matches!(op, StoreOp::Ack { .. } | StoreOp::Release { .. } | StoreOp::Claim { .. }) {
            self.settle();
        }
        let claim_id = match op {
            StoreOp::Ack { nth } | StoreOp::Release { nth } => match self.claim_id(*nth) {
                Some(claim_id) => claim_id,
                None => return,
            },
            _ => ClaimId::new(0, ""),
        };
        let granted = self.model.claims;
        let expected = self.model.apply(op, self.now_ms);
        let answer = call(self.room(), op, &claim_id, self.now_ms);
        let claim = (self.model.claims > granted).then_some(granted);
        self.outstanding.push(Outstanding { op: op.clone(), expected, answer, claim });
    }

    fn settle(&mut self) {
        for Outstanding { op, expected, answer, claim } in std::mem::take(&mut self.outstanding) {
            let (outcome, claim_id) = answer();
            agree(&op, &outcome, &expected);
            assert_eq!(claim_id.is_some(), claim.is_some());
            if let Some(number) = claim {
                assert_eq!(number, self.claims.len());
                self.claims.push(claim_id);
            }
        }
    }

    fn together(&mut self, ops: &[StoreOp], ending: Ending) {
        self.settle();
        let ops: Vec<_> = ops.iter().map(|op| self.not_behind_a_sweep(op)).collect();
        let (now_ms, room) = (self.now_ms, self.room().clone());
        let mut after = self.model.clone();
        let mut staged_bytes = 0;
        let answer = catch_unwind(AssertUnwindSafe(|| {
            let closure = |tx: &mut Transaction<'_>| {
                for op in &ops {
                    let claim_id = match op {
                        StoreOp::Ack { nth } | StoreOp::Release { nth } => {
                            match self.claim_id(*nth) {
                                Some(claim_id) => claim_id,
                                None => continue,
                            }
                        }
                        _ => ClaimId::new(0, ""),
                    };
                    let expected = after.apply(op, now_ms);
                    let (outcome, claim_id) = call_inside(tx, op, &claim_id, now_ms);
                    agree(op, &outcome, &expected);
                    self.claims.extend(claim_id.map(Some));
                    staged_bytes += staged_at_most(op);
                }
                // A write through a handle would wait for itself.
                let nested = room.handoff().delete("nested").wait();
                assert!(matches!(nested, Err(Error::NestedTransaction)), "{nested:?}");
                match ending {
                    Ending::Commit => Ok(()),
                    Ending::Err => Err(Abandoned::Asked),
                    // Without the panic hook, which ends the process in a fuzzer.
                    Ending::Panic => resume_unwind(Box::new(OnPurpose)),
                }
            };
            room.atomically(closure).wait()
        }));
        // Claims of an aborted transaction were returned to the caller, and claim nothing.
        self.model.claims = after.claims;
        match (ending, answer) {
            (Ending::Commit, Ok(Ok(()))) => self.model = after,
            (Ending::Commit, Ok(Err(Abandoned::Refused(Error::TooLarge { .. })))) => {
                assert!(
                    staged_bytes > FITS_BYTES,
                    "at most {staged_bytes} bytes were refused as too large"
                );
            }
            (Ending::Err, Ok(Err(Abandoned::Asked))) => {}
            (Ending::Panic, Err(panic)) if panic.is::<OnPurpose>() => {}
            (_, Err(panic)) => resume_unwind(panic),
            (ending, Ok(answer)) => panic!("{ending:?} of {ops:?} answered {answer:?}"),
        }
    }

    fn reopen(&mut self, how: Reopening) {
        let crash_seed = match (&self.disk, how) {
            (RunStorage::Simulated(_), Reopening::Kill) => Some(None),
            (RunStorage::Simulated(_), Reopening::PowerCut(seed)) => Some(Some(seed)),
            _ => None,
        };
        if let (Some(seed), RunStorage::Simulated(storage)) = (crash_seed, &self.disk) {
            let storage = storage.clone();
            // Every awaited answer is durable, so nothing of the model may be missing afterwards.
            self.compare(1_000);
            storage.power_off();
            let image = match seed {
                Some(seed) => storage.crash_image(seed.into()),
                None => storage.process_crash_image(),
            };
            self.settle();
            self.room = None;
            self.disk = RunStorage::Simulated(SimStorage::from_image(image, 1));
        } else {
            let room = self.room.take().unwrap();
            if how == Reopening::Close {
                room.close().unwrap();
                room.close().unwrap();
                let late = room.handoff().get("late").wait();
                assert!(matches!(late, Err(Error::Closed)), "{late:?}");
            }
            drop(room);
            // A `Pending` from before the close still returns its answer.
            self.settle();
        }
        self.open();
        if matches!(how, Reopening::Kill | Reopening::PowerCut(_)) {
            self.compare(1_000);
        }
    }

    /// Compares everything that is stored with the model, page by page.
    fn compare(&self, limit: usize) {
        let now_ms = self.now_ms;
        let tokens = self.room().form_tokens();
        let found = all(limit, |cursor, limit| tokens.list(cursor, limit).wait());
        let expected: Vec<_> =
            self.model.tokens.values().filter(|token| token.is_live(now_ms.into())).collect();
        assert_eq!(found.len(), expected.len(), "live tokens");
        for (FormTokenEntry { record, consumed, .. }, expected) in found.iter().zip(&expected) {
            assert_eq!(*record, expected.record);
            let consumed =
                consumed.as_ref().map(|used| (used.consumed_at, used.result_ref.as_deref()));
            assert_eq!(
                consumed,
                expected.used.as_ref().map(|used| (used.at, used.result_ref.as_deref()))
            );
        }
        let stats = tokens.stats().wait().unwrap();
        let consumed = expected.iter().filter(|token| token.used.is_some()).count();
        assert_eq!(
            (stats.live, stats.consumed),
            ((expected.len() - consumed) as u64, consumed as u64)
        );
        // A sweeper may have removed entries.
        assert!(stats.expired <= (self.model.tokens.len() - expected.len()) as u64);

        let handoff = self.room().handoff();
        let found = all(limit, |cursor, limit| handoff.list(cursor, limit).wait());
        let expected: Vec<_> =
            self.model.states.iter().filter(|(_, state)| state.is_live(now_ms)).collect();
        assert_eq!(found.len(), expected.len(), "live states");
        let mut claimed = 0;
        for (HandoffEntry { state_id, expires_at_ms, bytes, claimed_until_ms, .. }, (id, state)) in
            found.iter().zip(&expected)
        {
            let until_ms = state.claimed_until_ms(now_ms);
            assert_eq!((state_id, *expires_at_ms), (*id, state.expires_at_ms));
            assert_eq!((*bytes, *claimed_until_ms), (state.bytes as u64, until_ms));
            claimed += u64::from(until_ms.is_some());
            let visible = until_ms.is_none().then_some(&state.content);
            assert_eq!(handoff.get(id).wait().unwrap().as_ref(), visible);
        }
        let stats = handoff.stats().wait().unwrap();
        assert_eq!((stats.live, stats.claimed), (expected.len() as u64 - claimed, claimed));
        assert!(stats.expired <= (self.model.states.len() - expected.len()) as u64);
    }
}

/// Every row of a listing, with cursors passed as strings.
fn all<T>(limit: usize, list: impl Fn(Option<&Cursor>, usize) -> crate::Result<Page<T>>) -> Vec<T> {
    let mut found = Vec::new();
    let mut cursor: Option<Cursor> = None;
    loop {
        let page = list(cursor.as_ref(), limit).unwrap();
        assert!(page.items.len() <= limit);
        found.extend(page.items);
        match page.next {
            Some(next) => cursor = Some(next.to_string().parse().unwrap()),
            None => return found,
        }
    }
}

fn agree(op: &StoreOp, outcome: &ModelOutcome, expected: &ModelOutcome) {
    // With two faults, it is not specified which is reported.
    let either = matches!(
        (outcome, expected),
        (ModelOutcome::Refused(Refusal::Encode), ModelOutcome::Refused(Refusal::TooLarge))
    );
    assert!(
        either || outcome == expected,
        "{op:?} answered {outcome:?} where the model has {expected:?}"
    );
}

/// An upper bound of the bytes of the rows of `op`.
fn staged_at_most(op: &StoreOp) -> usize {
    let key = |number| 5 * ops::key_text(number).len() + 500;
    match op {
        StoreOp::Insert { key: number, .. } => key(*number),
        StoreOp::Consume { candidates, .. } | StoreOp::SetResult { candidates, .. } => {
            candidates.iter().map(|number| key(*number)).sum()
        }
        StoreOp::Set { id, body, .. } => key(*id) + encoded_len(&ops::body(*body)),
        StoreOp::Get { id }
        | StoreOp::Take { id }
        | StoreOp::Delete { id }
        | StoreOp::Claim { id, .. } => key(*id),
        StoreOp::Ack { .. } | StoreOp::Release { .. } => 5 * crate::limits::MAX_KEY_LEN,
    }
}
