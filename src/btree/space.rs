//! How much of the B-tree is used, and how much of its part of the file is free.

/// How much of the B-tree is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Space {
    /// Bytes of the B-tree that the file has space for, without checksums and headers.
    pub(crate) present_bytes: u64,
    /// How many of them the newest commit uses.
    pub(crate) used_bytes: u64,
    /// The end of the last used block.
    pub(crate) used_end: u64,
}

impl Space {
    /// Whether the file ends near the last used block.
    pub(crate) fn is_cut(&self) -> bool {
        self.present_bytes <= self.used_end
    }

    /// Bytes that the newest commit does not use.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.present_bytes.saturating_sub(self.used_bytes)
    }
}
