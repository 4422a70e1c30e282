//! Jobs in flight: of many callers that want the same, one does it and the others wait for it.
//!
//! ```
//! use cloakroom::Cloakroom;
//! use cloakroom::dedupe::DedupeStore;
//!
//! let room = Cloakroom::builder().open_in_memory()?;
//! let jobs = room.dedupe::<String>("http");
//! let owner = jobs.register_or_join("GET /weather").wait()?;
//! assert!(owner.is_owner);
//! assert!(!jobs.register_or_join("GET /weather").wait()?.is_owner);
//! let waiting = jobs.wait_for("GET /weather");
//! assert!(jobs.complete_owned("GET /weather", &owner.job_id, &"rain".to_owned()).wait()?);
//! assert_eq!(waiting.wait()?.as_deref(), Some("rain"));
//! # Ok::<(), cloakroom::Error>(())
//! ```

pub use crate::stores::dedupe::{
    Dedupe, DedupeEntry as Entry, DedupeStats as Stats, DedupeStore, DedupeTx as Tx, Job, JobGuard,
    JobId, JobIdParseError, JobState, Registration,
};
