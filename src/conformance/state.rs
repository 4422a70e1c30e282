//! What every [`StateStore`] must do.

mod calls;
mod conditional;
mod fence;
mod late_window;
mod listing;
mod slots;

use super::{Rule, run};
use crate::clock::ManualClock;
use crate::stores::state::StateStore;
use calls::StateDriver;
use std::sync::Arc;

pub use fence::{FenceEffect, state_fence};
pub use late_window::state_late_window;

/// Runs the whole suite on stores that `factory` makes: fresh, empty, and with the clock that they
/// take their time from.
///
/// # Panics
/// When a rule is broken, with the list of the broken ones.
pub fn state<S: StateStore + 'static>(factory: impl Fn() -> (S, Arc<ManualClock>)) {
    let rules: Vec<Rule<StateDriver>> = [slots::RULES, conditional::RULES, listing::RULES].concat();
    run("state", &rules, |check: &dyn Fn(&StateDriver, &ManualClock)| {
        let (store, clock) = factory();
        check(&store, &clock);
    });
}
