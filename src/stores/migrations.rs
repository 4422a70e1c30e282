//! How rows of older format versions become those of the present one.
//!
//! There is one migration for each version that can still be opened, oldest first, and each makes
//! the rows of the next version. A migration is frozen with the version it comes from: it decodes
//! with code of its own, not with that of the stores, which goes on changing. A table that a
//! version gives up keeps its number and its name for as long as a migration reads it.

#[cfg(any(test, feature = "testing"))]
pub(crate) mod made_up;

use crate::engine::Migration;

/// The migrations, oldest first.
pub(crate) const ALL: &[Migration] = &[
    #[cfg(any(test, feature = "testing"))]
    made_up::FROM_1,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{FORMAT_VERSION, OLDEST_VERSION};

    #[test]
    fn there_is_one_from_each_version_that_can_be_opened() {
        let versions = ALL.iter().map(|migration| migration.from);
        assert!(versions.eq(OLDEST_VERSION..FORMAT_VERSION));
    }
}
