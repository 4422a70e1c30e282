//! The suites of agent state refuse drivers that are wrong in one point: each rule is seen to
//! break, for bounded listings and for the late window.

use cloakroom::drivers::InMemoryState;
use cloakroom::page::{Cursor, Page};
use cloakroom::state::{
    EventId, Identity, ListScope, SlotExpectation, StateError, StateRecord, StateStore,
};
use cloakroom::{ManualClock, Pending, conformance};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// What is wrong in a driver.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    BoundedFromTheEnd,
    BoundedOneTooMany,
    BoundedIgnoresTheLimit,
    BoundedTakesZero,
    BoundedTakesTooMuch,
    BoundedNeedsNoScope,
    BoundedNeedsNoPrefix,
    LateForgetsDeleted,
    LateForgetsDeletedIf,
    LateForgetsDeletedScopes,
    LateIgnoresWhatIsSaved,
    LateComesFirst,
    LateIsFound,
}

/// A right driver, and the same states without a late window, behind a fault.
struct WrongState {
    right: InMemoryState,
    without_window: InMemoryState,
    fault: Fault,
}

impl WrongState {
    fn new(fault: Fault, window: Duration) -> (Self, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new(0));
        let without_window = InMemoryState::with_clock(clock.clone());
        let right = without_window.clone().with_late_window(window);
        (Self { right, without_window, fault }, clock)
    }

    fn deletes_through(&self, fault: Fault) -> &InMemoryState {
        if self.fault == fault { &self.without_window } else { &self.right }
    }
}

impl StateStore for WrongState {
    fn save(&self, record: StateRecord) -> Pending<(), StateError> {
        let answer = self.right.save(record);
        match self.fault {
            Fault::LateIgnoresWhatIsSaved => answer.then(|answer| match answer {
                Err(StateError::IdempotencyConflict) => Ok(()),
                answer => answer,
            }),
            _ => answer,
        }
    }

    fn load(&self, identity: &Identity, kind: &str) -> Pending<StateRecord, StateError> {
        self.right.load(identity, kind)
    }

    fn load_by_event_id(&self, event_id: &EventId) -> Pending<StateRecord, StateError> {
        let answer = self.right.load_by_event_id(event_id);
        let id = event_id.clone();
        match self.fault {
            Fault::LateIsFound => answer.then(move |answer| match answer {
                Err(StateError::NotFound) => {
                    let whose = Identity::new("t", "u", "s", "");
                    Ok(StateRecord::new(whose, "plan", *b"").with_id(id))
                }
                answer => answer,
            }),
            _ => answer,
        }
    }

    fn delete(&self, identity: &Identity, kind: &str) -> Pending<(), StateError> {
        self.deletes_through(Fault::LateForgetsDeleted).delete(identity, kind)
    }

    fn list_kind(
        &self,
        scope: ListScope,
        kind_prefix: &str,
    ) -> Pending<Vec<StateRecord>, StateError> {
        self.right.list_kind(scope, kind_prefix)
    }

    fn list_kind_bounded(
        &self,
        scope: ListScope,
        kind_prefix: &str,
        limit: usize,
    ) -> Pending<Vec<StateRecord>, StateError> {
        let bounded =
            |scope, prefix: &str, limit| self.right.list_kind_bounded(scope, prefix, limit);
        let all = || self.right.list_kind(scope, kind_prefix);
        let is_good = (1..=10_001).contains(&limit);
        match self.fault {
            Fault::BoundedFromTheEnd if is_good => {
                all().map(move |mut all| all.split_off(all.len().saturating_sub(limit)))
            }
            Fault::BoundedOneTooMany if limit < 10_001 && is_good => {
                bounded(scope, kind_prefix, limit + 1)
            }
            Fault::BoundedIgnoresTheLimit if is_good => all(),
            Fault::BoundedTakesZero if limit == 0 => bounded(scope, kind_prefix, 1),
            Fault::BoundedTakesTooMuch => bounded(scope, kind_prefix, limit.min(10_001)),
            Fault::BoundedNeedsNoScope => bounded(ListScope::maintenance(), kind_prefix, limit),
            Fault::BoundedNeedsNoPrefix if kind_prefix.is_empty() => bounded(scope, "k", limit),
            _ => bounded(scope, kind_prefix, limit),
        }
    }

    fn close(&self) -> Pending<(), StateError> {
        self.right.close()
    }

    fn save_if(
        &self,
        expectations: &[SlotExpectation],
        next: StateRecord,
    ) -> Pending<(), StateError> {
        let late = self.right.load_by_event_id(&next.id).wait().is_err();
        let answer = self.right.save_if(expectations, next.clone());
        match self.fault {
            // An id that was remembered is Ok, whatever was expected.
            Fault::LateComesFirst if late => match answer.wait() {
                Err(StateError::ConditionFailed) => self.right.save(next),
                answer => Pending::ready(answer),
            },
            _ => answer,
        }
    }

    fn save_batch_if(
        &self,
        expectations: &[SlotExpectation],
        writes: Vec<StateRecord>,
    ) -> Pending<(), StateError> {
        self.right.save_batch_if(expectations, writes)
    }

    fn delete_if(&self, expectation: &SlotExpectation) -> Pending<bool, StateError> {
        self.deletes_through(Fault::LateForgetsDeletedIf).delete_if(expectation)
    }

    fn delete_scope(&self, tenant: &str, user: &str, session: &str) -> Pending<u64, StateError> {
        self.deletes_through(Fault::LateForgetsDeletedScopes).delete_scope(tenant, user, session)
    }

    fn list_kind_for_identity(
        &self,
        identity: &Identity,
        kind_prefix: &str,
        limit: Option<usize>,
    ) -> Pending<Vec<StateRecord>, StateError> {
        self.right.list_kind_for_identity(identity, kind_prefix, limit)
    }

    fn scan_kind_for_tenant(
        &self,
        scope: ListScope,
        tenant: &str,
        kind_prefix: &str,
        limit: usize,
        cursor: Option<&Cursor>,
    ) -> Pending<Page<StateRecord>, StateError> {
        self.right.scan_kind_for_tenant(scope, tenant, kind_prefix, limit, cursor)
    }
}

/// The broken rules of a driver that is wrong.
fn refusal(suite: impl FnOnce()) -> Vec<String> {
    let panic = catch_unwind(AssertUnwindSafe(suite)).expect_err("a wrong driver passed the suite");
    let text = *panic.downcast::<String>().expect("a suite panics with a text");
    text.lines().filter_map(|line| line.strip_prefix("- ")).map(str::to_owned).collect()
}

#[test]
fn the_driver_without_a_fault_passes() {
    conformance::state(|| WrongState::new(Fault::None, Duration::ZERO));
    conformance::state_late_window(|window| WrongState::new(Fault::None, window));
}

#[test]
fn wrong_bounded_listings_are_refused() {
    let first = "list_kind_bounded answers the first of list_kind";
    let arguments = "list_kind_bounded takes 1 to 10,001, a maintenance scope and a prefix";
    for (fault, rule) in [
        (Fault::BoundedFromTheEnd, first),
        (Fault::BoundedOneTooMany, first),
        (Fault::BoundedIgnoresTheLimit, first),
        (Fault::BoundedTakesZero, arguments),
        (Fault::BoundedTakesTooMuch, arguments),
        (Fault::BoundedNeedsNoScope, arguments),
        (Fault::BoundedNeedsNoPrefix, arguments),
    ] {
        let broken = refusal(|| conformance::state(|| WrongState::new(fault, Duration::ZERO)));
        assert_eq!(broken, [rule], "{fault:?}");
    }
}

#[test]
fn wrong_late_windows_are_refused() {
    let deleted = "an event of a slot that was deleted in any way is remembered as well";
    for (fault, rule) in [
        (Fault::LateForgetsDeleted, deleted),
        (Fault::LateForgetsDeletedIf, deleted),
        (Fault::LateForgetsDeletedScopes, deleted),
        (Fault::LateIgnoresWhatIsSaved, "a remembered id with other bytes"),
        (Fault::LateComesFirst, "predicates come first"),
        (Fault::LateIsFound, "an event that is remembered is not found"),
    ] {
        let broken =
            refusal(|| conformance::state_late_window(|window| WrongState::new(fault, window)));
        assert!(broken.iter().any(|broken| broken.starts_with(rule)), "{fault:?}: {broken:?}");
    }
    // The window is too short, too long, or not there.
    let with = |change: fn(Duration) -> Duration| {
        refusal(|| {
            conformance::state_late_window(|window| WrongState::new(Fault::None, change(window)));
        })
    };
    let span = "the window lasts from the replacement for exactly its span".to_owned();
    assert!(with(|window| window - Duration::from_millis(1)).contains(&span));
    assert!(with(|window| window + Duration::from_millis(1)).contains(&span));
    let none = with(|_| Duration::ZERO);
    assert!(none.len() > 4 && none.contains(&span), "{none:?}");
}
