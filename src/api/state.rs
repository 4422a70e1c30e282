//! Agent state: what an agent remembers, by whose it is, with optimistic concurrency.
//!
//! ```
//! use cloakroom::Cloakroom;
//! use cloakroom::state::{Identity, SlotExpectation, StateRecord, StateStore};
//!
//! let room = Cloakroom::builder().open_in_memory()?;
//! let states = room.state();
//! let whose = Identity::new("acme", "ada", "session-1", "");
//! let first = StateRecord::new(whose.clone(), "plan", *b"step 1");
//! states.save(first.clone()).wait()?;
//! // Only if no other caller has saved a plan meanwhile.
//! let unchanged = SlotExpectation::current(whose.clone(), "plan", first.id);
//! states.save_if(&[unchanged], StateRecord::new(whose.clone(), "plan", *b"step 2")).wait()?;
//! assert_eq!(states.load(&whose, "plan").wait()?.bytes, b"step 2");
//! # Ok::<(), cloakroom::state::StateError>(())
//! ```

pub use crate::stores::state::{
    EventId, Identity, ListScope, SlotExpectation, State, StateEntry as Entry, StateError,
    StateRecord, StateStats as Stats, StateStore, StateTx as Tx, validate_identity,
    validate_list_kind, validate_record,
};
