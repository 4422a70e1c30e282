//! How models are run.
//!
//! Loom runs every interleaving of a small model (with a bound on how often threads are preempted),
//! reordered stores included. Shuttle runs the whole engine in seeded random interleavings; when
//! one fails it prints a schedule, which `CLOAKROOM_MODEL_SCHEDULE` gives back.

use super::thread;
use std::sync::Arc;
use std::task::{Wake, Waker};

/// Runs `model` in every interleaving in which no more than three steps of a thread are preempted.
#[cfg(cloakroom_model = "loom")]
pub(crate) fn every_interleaving(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.max_branches = 10_000;
    builder.check(model);
}

/// Runs `model` in `runs` random interleavings, and as many again in which few preemptions come at
/// the places where they hurt most (probabilistic concurrency testing).
///
/// # Panics
/// When the model panics, when no thread of it can go on, or when it has not ended after a million
/// steps, as when its threads only look for what none of them does.
#[cfg(cloakroom_model = "shuttle")]
pub(crate) fn sampled(runs: usize, model: impl Fn() + Send + Sync + 'static) {
    use shuttle::Runner;
    use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler};

    const SEED: u64 = 0x00c1_0a4b;
    /// A preemption at the wrong moment, and one that makes it the wrong moment.
    const PREEMPTIONS: usize = 3;

    let mut config = shuttle::Config::new();
    // redb is deep.
    config.stack_size = 1 << 20;
    let model = Arc::new(model);
    let run = || {
        let model = Arc::clone(&model);
        move || model()
    };
    if let Ok(schedule) = std::env::var("CLOAKROOM_MODEL_SCHEDULE") {
        Runner::new(ReplayScheduler::new_from_encoded(&schedule), config).run(run());
        return;
    }
    let seed = std::env::var("CLOAKROOM_MODEL_SEED").map_or(SEED, |seed| seed.parse().unwrap());
    let runs =
        if std::env::var("CLOAKROOM_TESTS").as_deref() == Ok("long") { 4 * runs } else { runs };
    Runner::new(RandomScheduler::new_from_seed(seed, runs), config.clone()).run(run());
    Runner::new(PctScheduler::new_from_seed(seed, PREEMPTIONS, runs), config).run(run());
}

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls until there is an answer, and sleeps in between, as an executor does. A lost wake-up is a
/// thread that sleeps for ever, which the checkers report.
pub(crate) fn block_on<T>(mut poll: impl FnMut(&Waker) -> Option<T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        if let Some(answer) = poll(&waker) {
            return answer;
        }
        thread::park();
    }
}
