//! Claim checks: a state is left under an id, and handed over once.
//!
//! ```
//! use cloakroom::Cloakroom;
//! use cloakroom::handoff::HandoffStateStore;
//! use std::time::Duration;
//!
//! let room = Cloakroom::builder().open_in_memory()?;
//! let states = room.handoff();
//! let state = serde_json::from_str(r#"{"cart": [1, 2]}"#).unwrap();
//! states.set("order-7", &state, 600).wait()?;
//! // A reader that may die takes it in two phases: nothing is lost if it never acknowledges.
//! let lease = Duration::from_secs(30);
//! let claim = states.claim("order-7", lease).wait()?.expect("no other caller has claimed it");
//! assert_eq!(claim.state, state);
//! assert!(states.ack(&claim.id).wait()?);
//! assert_eq!(states.get("order-7").wait()?, None);
//! # Ok::<(), cloakroom::Error>(())
//! ```

pub use crate::stores::handoff::{
    Claim, ClaimId, ClaimIdParseError, Handoff, HandoffEntry as Entry, HandoffStateStore,
    HandoffStats as Stats, HandoffTx as Tx, JsonObject, RawClaim,
};
