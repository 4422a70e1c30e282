//! Who is told when the clock of a room is moved.

use crate::clock::{Clock, ClockPace};
use crate::sync::Mutex;
use std::fmt;
use std::sync::{Arc, OnceLock};

type Listener = Arc<dyn Fn() + Send + Sync>;

/// The room's clock, and what is called when it has moved.
pub(super) struct ClockMoves {
    clock: Arc<dyn Clock>,
    /// How the clock moves, once it was asked, and what it calls.
    pace: Mutex<Option<(ClockPace, Listener)>>,
    moved: OnceLock<Listener>,
}

impl ClockMoves {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, pace: Mutex::default(), moved: OnceLock::new() }
    }

    /// Sets what is called when the clock has moved.
    pub(super) fn tell(&self, moved: impl Fn() + Send + Sync + 'static) {
        let _ = self.moved.set(Arc::new(moved));
    }

    /// Has the clock tell of its moves. A second listener, if two calls come here at once, does no
    /// harm: it is dropped.
    pub(super) fn listen(&self) {
        if self.pace.lock().is_some() {
            return;
        }
        let moved = self.moved.get().cloned();
        let listener: Listener = Arc::new(move || {
            if let Some(moved) = &moved {
                moved();
            }
        });
        // Not under the lock, because a clock may be anything.
        let pace = self.clock.on_change(Arc::downgrade(&listener));
        self.pace.lock().get_or_insert((pace, listener));
    }

    /// How the clock moves, once it was asked.
    pub(super) fn pace(&self) -> Option<ClockPace> {
        self.pace.lock().as_ref().map(|(pace, _)| *pace)
    }
}

impl fmt::Debug for ClockMoves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClockMoves").field("clock", &self.clock).finish_non_exhaustive()
    }
}
