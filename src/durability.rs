//! How much a caller wants to be sure of before it gets its answer.

use std::time::Duration;

/// When a write is answered.
///
/// Whatever the level, a file never opens inconsistent: a crash takes away a suffix of the writes,
/// never a part of one or one from the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Durability {
    /// When the disk has it: survives a power failure. The default of form tokens, claim checks and
    /// state.
    #[default]
    Sync,
    /// When the operating system has it, with a flush at most this much later: survives a crash of
    /// the process at once, and of the machine after at most that long.
    Interval(Duration),
    /// When the operating system has it: survives a crash of the process.
    Os,
}

impl Durability {
    /// Whether an answer waits for the disk.
    pub(crate) fn is_sync(self) -> bool {
        matches!(self, Durability::Sync)
    }
}
