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
