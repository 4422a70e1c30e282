//! What a fence over a slot must do.

use crate::clock::ManualClock;
use crate::conformance::{Rule, run};
use crate::error::Error;
use crate::pending::Pending;
use crate::stores::state::{Identity, SlotExpectation, StateError, StateRecord, StateStore};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// The effect of a fence, as the suite hands it to a driver.
pub type FenceEffect<'a> = &'a mut dyn FnMut() -> Result<(), StateError>;

/// A store, and how it fences.
trait FencingDriver: Sync {
    fn store(&self) -> &dyn StateStore;
    fn fence(
        &self,
        expectation: &SlotExpectation,
        effect: FenceEffect<'_>,
    ) -> Result<(), StateError>;
}

type FenceDriver = dyn FencingDriver;

struct FencedStore<S, F>(S, Arc<F>);

impl<S, F> FencingDriver for FencedStore<S, F>
where
    S: StateStore,
    F: Fn(&S, &SlotExpectation, FenceEffect<'_>) -> Pending<(), StateError> + Send + Sync,
{
    fn store(&self) -> &dyn StateStore {
        &self.0
    }

    fn fence(
        &self,
        expectation: &SlotExpectation,
        effect: FenceEffect<'_>,
    ) -> Result<(), StateError> {
        (self.1)(&self.0, expectation, effect).wait()
    }
}

/// Runs the suite of `fence_if`, which is generic and so no method of the trait: `factory` makes
/// stores, fresh and empty, and `fence` calls the driver's.
///
/// ```
/// # #[cfg(feature = "conformance")] {
/// use cloakroom::{Cloakroom, conformance};
/// conformance::state_fence(
///     || Cloakroom::builder().open_in_memory().unwrap().state(),
///     |store, expectation, effect| store.fence_if(expectation, effect),
/// );
/// # }
/// ```
///
/// # Panics
/// When a rule is broken, with the list of the broken ones.
pub fn state_fence<S: StateStore + 'static>(
    factory: impl Fn() -> S,
    fence: impl Fn(&S, &SlotExpectation, FenceEffect<'_>) -> Pending<(), StateError>
    + Send
    + Sync
    + 'static,
) {
    let fence = Arc::new(fence);
    run("state fence", RULES, |check: &dyn Fn(&FenceDriver, &ManualClock)| {
        // No rule is about time.
        check(&FencedStore(factory(), Arc::clone(&fence)), &ManualClock::new(0));
    });
}

const RULES: &[Rule<FenceDriver>] = &[
    ("the effect runs once if the slot holds what is expected", runs),
    ("the effect does not run otherwise, and the answer is ConditionFailed", does_not_run),
    ("a slot or event id that cannot be is refused as elsewhere", refused),
    ("the answer is the error of the effect", effect_fails),
    ("a panic in the effect goes on, and so does the store", effect_panics),
    ("the effect may read, and a write from inside it is an error and no deadlock", reentrant),
    ("no other thread changes the slot while the effect runs", keeps_others_out),
    ("a closed store runs no effect", closed),
];

fn whose() -> Identity {
    Identity::new("t", "u", "s", "")
}

/// Saves a record in the slot of the checks.
fn saved(driver: &FenceDriver, id: &str) -> SlotExpectation {
    let record = StateRecord::new(whose(), "lease", *b"x").with_id(id);
    driver.store().save(record).wait().unwrap();
    SlotExpectation::current(whose(), "lease", id.into())
}

fn absent() -> SlotExpectation {
    SlotExpectation::absent(whose(), "lease")
}

fn runs(driver: &FenceDriver, _: &ManualClock) {
    let mut count = 0;
    let mut effect = || {
        count += 1;
        Ok(())
    };
    driver.fence(&absent(), &mut effect).unwrap();
    let mine = saved(driver, "e1");
    driver.fence(&mine, &mut effect).unwrap();
    driver.fence(&mine, &mut effect).unwrap();
    assert_eq!(count, 3);
}

fn does_not_run(driver: &FenceDriver, _: &ManualClock) {
    let mut effect = || -> Result<(), StateError> { panic!("the effect ran") };
    let mut fails = |expectation: &SlotExpectation| {
        let answer = driver.fence(expectation, &mut effect);
        assert!(matches!(answer, Err(StateError::ConditionFailed)), "{answer:?}");
    };
    let never = SlotExpectation::current(whose(), "lease", "e1".into());
    fails(&never);
    let old = saved(driver, "e1");
    fails(&absent());
    let new = saved(driver, "e2");
    fails(&old);
    driver.store().delete(&whose(), "lease").wait().unwrap();
    fails(&new);
}

fn refused(driver: &FenceDriver, _: &ManualClock) {
    let mut effect = || -> Result<(), StateError> { panic!("the effect ran") };
    let without_user = SlotExpectation::absent(Identity::new("t", "", "s", ""), "lease");
    let answer = driver.fence(&without_user, &mut effect);
    assert!(matches!(answer, Err(StateError::IdentityRequired(_))), "{answer:?}");
    for expectation in [
        SlotExpectation::absent(whose(), ""),
        SlotExpectation::current(whose(), "lease", "".into()),
    ] {
        let answer = driver.fence(&expectation, &mut effect);
        assert!(matches!(answer, Err(StateError::InvalidRecord(_))), "{answer:?}");
    }
}

fn effect_fails(driver: &FenceDriver, _: &ManualClock) {
    let mine = saved(driver, "e1");
    let answer = driver.fence(&mine, &mut || Err(StateError::IdempotencyConflict));
    assert!(matches!(answer, Err(StateError::IdempotencyConflict)), "{answer:?}");
    driver.fence(&mine, &mut || Ok(())).unwrap();
}

fn effect_panics(driver: &FenceDriver, _: &ManualClock) {
    let mine = saved(driver, "e1");
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        // Not by `panic!`, whose message would be printed.
        driver.fence(&mine, &mut || resume_unwind(Box::new("as planned")))
    }));
    assert!(panicked.is_err(), "the panic was swallowed");
    driver.fence(&mine, &mut || Ok(())).unwrap();
    let next = saved(driver, "e2");
    driver.fence(&next, &mut || Ok(())).unwrap();
}

fn reentrant(driver: &FenceDriver, _: &ManualClock) {
    let mine = saved(driver, "e1");
    let store = driver.store();
    let mut effect = || {
        assert_eq!(store.load(&whose(), "lease").wait()?.id.as_str(), "e1");
        let record = StateRecord::new(whose(), "lease", *b"y");
        let nested = |answer: Result<(), StateError>| {
            let is_nested = matches!(answer, Err(StateError::Store(Error::NestedTransaction)));
            assert!(is_nested, "{answer:?}");
        };
        nested(store.save(record).wait());
        nested(store.delete(&whose(), "lease").wait());
        nested(
            driver.fence(&mine, &mut || Ok(())).and_then(|()| store.delete(&whose(), "x").wait()),
        );
        Ok(())
    };
    driver.fence(&mine, &mut effect).unwrap();
    assert_eq!(store.load(&whose(), "lease").wait().unwrap().bytes, b"x");
}

fn keeps_others_out(driver: &FenceDriver, _: &ManualClock) {
    let mine = saved(driver, "e1");
    thread::scope(|scope| {
        let mut writer = None;
        let mut effect = || {
            writer = Some(scope.spawn(|| saved(driver, "e2")));
            for _ in 0..20 {
                thread::sleep(Duration::from_millis(1));
                let id = driver.store().load_by_event_id(&"e1".into()).wait().map(|found| found.id);
                assert!(id.is_ok(), "another thread changed the slot: {id:?}");
            }
            Ok(())
        };
        driver.fence(&mine, &mut effect).unwrap();
        let next = writer.map(|writer| writer.join().unwrap()).unwrap();
        driver.fence(&next, &mut || Ok(())).unwrap();
    });
}

fn closed(driver: &FenceDriver, _: &ManualClock) {
    let mine = saved(driver, "e1");
    driver.store().close().wait().unwrap();
    let answer = driver.fence(&mine, &mut || panic!("the effect ran"));
    assert!(matches!(answer, Err(StateError::StoreClosed)), "{answer:?}");
}
