//! Tools over a whole room: verification, salvage, export, import, dump. A program that only stores
//! tokens does without them.
//!
//! What needs an open room is a method of [`Cloakroom`](crate::Cloakroom):
//! [`verify`](crate::Cloakroom::verify), [`export`](crate::Cloakroom::export),
//! [`import`](crate::Cloakroom::import), [`dump`](crate::Cloakroom::dump). What works on a file
//! that nobody has open is a function of this module.
//!
//! ```
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("edge.cloak");
//! cloakroom::Cloakroom::open(&path)?.close()?;
//! let report = cloakroom::tools::verify(&path)?;
//! assert!(report.findings.is_empty());
//! # Ok::<(), cloakroom::Error>(())
//! ```

pub use crate::export::{DumpRow, ExportReport, ImportReport, TableInfo};
pub use crate::salvage::{Loss, SalvageReport, salvage};
pub use crate::verify::{Finding, VerifyReport, verify};
