//! In-memory state that the handles of one named store share: waiters, recency, counters.

use parking_lot::Mutex;
use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

/// What stores keep in memory, by the type of it and the store's name. It lives as long as the
/// engine.
#[derive(Debug, Default)]
pub(super) struct SharedStates {
    states: Mutex<HashMap<(TypeId, String), Arc<dyn Any + Send + Sync>>>,
}

impl SharedStates {
    /// The one `S` of the store called `name`, made when it is first asked for.
    pub(super) fn get<S: Default + Send + Sync + 'static>(&self, name: &str) -> Arc<S> {
        let mut states = self.states.lock();
        let state = states
            .entry((TypeId::of::<S>(), name.to_owned()))
            .or_insert_with(|| Arc::new(S::default()));
        // The key holds the type, so this is an `S`.
        Arc::clone(state).downcast().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_and_type_is_one_state() {
        let states = SharedStates::default();
        *states.get::<Mutex<u8>>("a").lock() = 7;
        assert_eq!(*states.get::<Mutex<u8>>("a").lock(), 7);
        assert_eq!(*states.get::<Mutex<u8>>("b").lock(), 0);
        assert_eq!(*states.get::<Mutex<u16>>("a").lock(), 0);
    }
}
