//! One-file, ACID storage for what is handed over once.

#![deny(missing_docs, unsafe_code)]
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod base;
mod clock;
mod codec;
mod durability;
mod engine;
mod error;
pub mod limits;
mod log;
mod memtable;
mod pending;
mod storage;
mod tables;

pub use clock::{Clock, ManualClock, SystemClock};
pub use durability::Durability;
pub use engine::EngineStats;
pub use error::{Error, Result};
pub use pending::Pending;

/// The fault-injecting storage, for tests of this crate and of what is built on it. Not part of the stable interface.
#[cfg(any(test, feature = "testing"))]
pub mod testing {
    pub use crate::storage::sim::{CallKind, Fault, SimStorage};
    pub use crate::storage::{Storage, StorageView};
}
