//! Durability levels: what must be durable before a write returns.

use std::time::Duration;

/// When a write returns.
///
/// At every level a file opens consistent: a crash loses a suffix of the writes, never a part of
/// one write and never a write from the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Durability {
    /// When the disk has it: it survives a power failure. The default of form tokens, claim checks
    /// and state.
    #[default]
    Sync,
    /// When the operating system has it, with a flush at most this much later: it survives a crash
    /// of the process at once, and a crash of the machine after at most that time.
    Interval(Duration),
    /// When the operating system has it: it survives a crash of the process.
    Os,
}

impl Durability {
    /// Whether a write waits for the disk.
    pub(crate) fn is_sync(self) -> bool {
        matches!(self, Durability::Sync)
    }
}
