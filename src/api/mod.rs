//! The public modules: what a program imports, by store, under short names.
//!
//! The code below this module uses one name for one type everywhere (`CacheEntry`,
//! `HandoffEntry`). This module decides under which path and name a program sees it
//! (`cloakroom::cache::Entry`), and nothing else. Names that the interfaces in use elsewhere
//! have fixed keep their spelling.

pub mod adaptive_rate_limit;
pub mod cache;
pub mod dedupe;
pub mod form_token;
pub mod handoff;
pub mod maintenance;
pub mod page;
pub mod prelude;
pub mod rate_limit;
pub mod state;
pub mod stats;
pub mod watch;
