//! Rate limits over an exact sliding window, at a cost that does not grow with the limit.
//!
//! ```
//! use cloakroom::Cloakroom;
//! use cloakroom::rate_limit::{RateLimitConfig, RateLimitStore};
//! use std::time::Duration;
//!
//! let room = Cloakroom::builder().open_in_memory()?;
//! let config = RateLimitConfig { limit: 1, window: Duration::from_secs(60) };
//! let limiter = room.rate_limit("api", config)?;
//! assert!(limiter.acquire("search").wait()?);
//! assert!(!limiter.acquire("search").wait()?);
//! # Ok::<(), cloakroom::Error>(())
//! ```

pub use crate::stores::rate_limit::{
    RateLimit, RateLimitConfig, RateLimitEntry as Entry, RateLimitStats as Stats, RateLimitStatus,
    RateLimitStore, RateLimitTx as Tx,
};
