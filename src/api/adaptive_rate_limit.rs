//! Rate limits that users and the background share, by what users have been doing.
//!
//! ```
//! use cloakroom::Cloakroom;
//! use cloakroom::adaptive_rate_limit::{AdaptiveConfig, AdaptiveRateLimitStore, Priority};
//! use cloakroom::rate_limit::RateLimitConfig;
//!
//! let room = Cloakroom::builder().open_in_memory()?;
//! let config = RateLimitConfig::adaptive_default();
//! let limiter = room.adaptive_rate_limit("api", config, AdaptiveConfig::default())?;
//! assert!(limiter.acquire("search", Priority::User).wait()?);
//! let status = limiter.status("search").wait()?;
//! assert_eq!(status.user_reserved + status.background_max, status.limit);
//! # Ok::<(), cloakroom::Error>(())
//! ```

pub use crate::stores::adaptive_rate_limit::{
    AdaptiveConfig, AdaptiveRateLimit, AdaptiveRateLimitEntry as Entry,
    AdaptiveRateLimitStats as Stats, AdaptiveRateLimitStatus, AdaptiveRateLimitStore,
    AdaptiveRateLimitTx as Tx, Priority,
};
