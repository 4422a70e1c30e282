//! Caches: values under hashes, for a time, with tags to remove them by.
//!
//! ```
//! use cloakroom::Cloakroom;
//! use cloakroom::cache::CacheStore;
//!
//! let room = Cloakroom::builder().open_in_memory()?;
//! let pages = room.cache::<String>("http").with_max_entries(10_000);
//! pages.set_with_tags("GET /a", &"<p>a".to_owned(), 60, &["site"]).wait()?;
//! assert_eq!(pages.get("GET /a").wait()?.as_deref(), Some("<p>a"));
//! assert_eq!(pages.invalidate_by_tag("site").wait()?, 1);
//! # Ok::<(), cloakroom::Error>(())
//! ```

pub use crate::stores::cache::{
    Bytes, Cache, CacheEntry as Entry, CacheStats as Stats, CacheStore, CacheTx as Tx, Ttl,
};
