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
mod fault;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod fuzzing;
mod histogram;
pub mod limits;
mod log;
mod memtable;
mod observe;
mod pending;
mod process;
mod room;
mod storage;
mod stores;
mod sync;
mod tables;
pub mod tools;
mod unique;

pub use api::{
    adaptive_rate_limit, cache, dedupe, form_token, handoff, maintenance, page, prelude,
    rate_limit, state, stats, watch,
};
pub use clock::{Clock, ManualClock, SystemClock};
pub use durability::Durability;
pub use error::{Error, Result};
pub use pending::{Answer, Pending};
pub use room::{Builder, Cloakroom, Transaction};

/// The fault-injecting storage, for tests of this crate and of what is built on it. Not part of the
/// stable interface.
#[cfg(any(test, feature = "testing"))]
pub mod testing {
    pub use crate::log::growth::with_least_log_space;
    pub use crate::storage::sim::{CallKind, Fault, SimStorage};
    pub use crate::storage::{
        FallbackCounts, Injected, Injection, Storage, StorageView, SystemCall, inject,
    };
    pub use crate::stores::migrations::made_up::write_version_1;

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

    /// Salvages a storage.
    ///
    /// # Errors
    /// As [`salvage`](crate::tools::salvage()).
    pub fn salvage_on(
        storage: &std::sync::Arc<dyn Storage>,
        to: &std::path::Path,
    ) -> crate::Result<crate::tools::SalvageReport> {
        crate::tools::salvage_storage(storage, std::path::Path::new("(storage)"), to)
    }

    /// Verifies a storage.
    ///
    /// # Errors
    /// As [`verify`](crate::tools::verify()).
    pub fn verify_on(
        storage: &std::sync::Arc<dyn Storage>,
    ) -> crate::Result<crate::tools::VerifyReport> {
        crate::tools::verify_storage(storage, std::path::Path::new("(storage)"))
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
