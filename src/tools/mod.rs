//! Tools over a whole room: verification, salvage, export, import, dump. A program that only stores
//! tokens does without them.
//!
//! What needs an open room is a method of [`Cloakroom`](crate::Cloakroom):
//! [`verify`](crate::Cloakroom::verify), [`export`](crate::Cloakroom::export),
//! [`import`](crate::Cloakroom::import), [`dump`](crate::Cloakroom::dump). What works on a file
//! that no one has open is a function of this module.
//!
//! ```
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("edge.cloak");
//! cloakroom::Cloakroom::open(&path)?.close()?;
//! let report = cloakroom::tools::verify(&path)?;
//! assert!(report.findings.is_empty());
//! # Ok::<(), cloakroom::Error>(())
//! ```

mod export;
mod salvage;
mod verify;

pub use export::{DumpRow, ExportReport, ImportReport, TableInfo};
pub(crate) use export::{dump_table, export_all, import_all, list_tables};
#[cfg(any(test, feature = "testing"))]
pub(crate) use salvage::salvage_storage;
pub use salvage::{Loss, SalvageReport, salvage};
pub(crate) use verify::verify_open;
#[cfg(any(test, feature = "testing"))]
pub(crate) use verify::verify_storage;
pub use verify::{Finding, VerifyReport, verify};
