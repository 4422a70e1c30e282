//! What the maintenance of a room reports: sweeps, compactions and backups.
//!
//! ```
//! let room = cloakroom::Cloakroom::builder().open_in_memory()?;
//! let swept: cloakroom::maintenance::SweepReport = room.sweep()?;
//! assert_eq!(swept.total(), 0);
//! # Ok::<(), cloakroom::Error>(())
//! ```

pub use crate::engine::{BackupReport, CompactReport};
pub use crate::stores::sweep::SweepReport;
