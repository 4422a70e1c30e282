#![doc = include_str!("../README.md")]
#![deny(missing_docs, unsafe_code)]
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod api;
mod btree;
pub mod clock;
mod codec;
#[cfg(feature = "codlet")]
pub mod codlet;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod drivers;
mod durability;
mod engine;
mod error;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod fuzzing;
mod histogram;
pub mod limits;
mod log;
mod memtable;
mod observe;
mod pending;
mod room;
mod storage;
mod stores;
mod tables;
pub mod tools;

pub use api::{
    adaptive_rate_limit, cache, dedupe, form_token, handoff, maintenance, page, prelude,
    rate_limit, state, stats, watch,
};
pub use clock::{Clock, ManualClock, SystemClock};
pub use durability::Durability;
pub use error::{Error, Result};
pub use pending::Pending;
pub use room::{Builder, Cloakroom, Transaction};

/// The fault-injecting storage, for tests of this crate and of what is built on it. Not part of the
/// stable interface.
#[cfg(any(test, feature = "testing"))]
pub mod testing {
    pub use crate::storage::sim::{CallKind, Fault, SimStorage};
    pub use crate::storage::{Storage, StorageView};
    pub use crate::stores::migrations::made_up::write_version_0;

    /// Salvages the bytes of a file.
    ///
    /// # Errors
    /// As [`salvage`](crate::tools::salvage()).
    pub fn salvage_image(
        bytes: Vec<u8>,
        to: &std::path::Path,
    ) -> crate::Result<crate::tools::SalvageReport> {
        let storage: std::sync::Arc<dyn Storage> =
            std::sync::Arc::new(crate::storage::MemoryStorage::from(bytes));
        crate::tools::salvage_storage(&storage, std::path::Path::new("(image)"), to)
    }

    /// Verifies the bytes of a file.
    ///
    /// # Errors
    /// As [`verify`](crate::tools::verify()).
    pub fn verify_image(bytes: Vec<u8>) -> crate::Result<crate::tools::VerifyReport> {
        let storage: std::sync::Arc<dyn Storage> =
            std::sync::Arc::new(crate::storage::MemoryStorage::from(bytes));
        crate::tools::verify_storage(&storage, std::path::Path::new("(image)"))
    }
}
