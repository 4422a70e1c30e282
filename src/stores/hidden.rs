//! How `Debug` shows what must not stand in a log: values, and keys that open something to a
//! caller who has them.

use std::fmt;

/// Shows a length and no content.
pub(crate) struct Hidden(usize);

impl Hidden {
    pub(crate) fn bytes(content: impl AsRef<[u8]>) -> Self {
        Self(content.as_ref().len())
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} bytes)", self.0)
    }
}
