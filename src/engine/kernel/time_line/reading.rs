//! What a clock says at one moment.

/// The two readings of a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClockReading {
    /// Milliseconds since the Unix epoch.
    pub(crate) wall_ms: u64,
    /// Milliseconds since the origin of the clock.
    pub(crate) elapsed_ms: u64,
}

impl ClockReading {
    /// The wall clock less the elapsed time: it changes when the wall clock is set.
    pub(super) fn offset_ms(self) -> i128 {
        i128::from(self.wall_ms) - i128::from(self.elapsed_ms)
    }
}
