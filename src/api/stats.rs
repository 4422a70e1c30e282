//! What a room counts, for dashboards and tools.
//!
//! ```
//! use cloakroom::Cloakroom;
//! use cloakroom::cache::CacheStore;
//! use cloakroom::stats::StoreKind;
//!
//! let room = Cloakroom::builder().open_in_memory()?;
//! room.cache::<u32>("primes").set("third", &5, 60).wait()?;
//! let stats = room.stats()?;
//! assert_eq!(stats.stores[0].store, StoreKind::CACHE);
//! assert_eq!((stats.stores[0].name.as_deref(), stats.stores[0].live), (Some("primes"), 1));
//! # Ok::<(), cloakroom::Error>(())
//! ```

pub use crate::engine::EngineStats;
pub use crate::histogram::{Histogram, HistogramBucket};
pub use crate::stores::{RoomStats, StoreKind, StoreStats};
