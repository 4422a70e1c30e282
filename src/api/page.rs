//! Listings in pages: every store lists what it holds, page by page, in the order of its keys.
//!
//! ```
//! use cloakroom::Cloakroom;
//! use cloakroom::handoff::{HandoffStateStore, JsonObject};
//!
//! let room = Cloakroom::builder().open_in_memory()?;
//! for id in ["a", "b", "c"] {
//!     room.handoff().set(id, &JsonObject::new(), 600).wait()?;
//! }
//! let first = room.handoff().list(None, 2).wait()?;
//! assert_eq!(first.items.len(), 2);
//! let rest = room.handoff().list(first.next.as_ref(), 2).wait()?;
//! assert_eq!(rest.items[0].state_id, "c");
//! assert_eq!(rest.next, None);
//! # Ok::<(), cloakroom::Error>(())
//! ```

pub use crate::stores::{Cursor, CursorParseError, Page};
