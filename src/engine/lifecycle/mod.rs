//! The life of a file: created, opened and recovered, brought up to date, copied.

mod backup;
mod durable_snapshot;
#[cfg(test)]
mod faulty;
mod fingerprint;
mod format;
mod migration;
pub(crate) mod new_file;
mod open;
mod recovered_image;
mod recovery;

pub use backup::BackupReport;
pub(in crate::engine) use backup::back_up;
pub(crate) use durable_snapshot::DurableSnapshot;
pub(crate) use format::Geometry;
pub(in crate::engine) use format::format;
#[cfg(any(test, feature = "testing"))]
pub(crate) use migration::Emit;
pub(crate) use migration::Migration;
pub(in crate::engine) use migration::bring_up_to_date;
pub(in crate::engine) use open::{KernelOptions, open_kernel};
#[cfg(any(test, feature = "testing"))]
pub(in crate::engine) use recovered_image::RecoveredImage;
