//! The stores: what a caller keeps in a room, each over the engine's transactions.
//!
//! What this folder promises:
//!
//! 1. Each operation of a store is written once, over a [`Reader`](crate::engine::access::Reader) or
//!    [`Writer`](crate::engine::access::Writer). A trait method runs it in a transaction of its own; the view that a
//!    transaction lends runs the same function among others.
//! 2. An operation checks everything that it was given before it stages its first row, so that an error leaves
//!    nothing behind even in the middle of a larger transaction.
//! 3. A row that is expired by time is absent to every answer, whether or not the sweeper has removed it.
//! 4. The row of the expiry index changes in the same transaction as the row that it is about.
//! 5. What sweeps a row reads it again, decides by it alone, and removes every row that belongs to it.

pub mod adaptive_rate_limit;
pub mod cache;
pub(crate) mod check;
pub(crate) mod codlet_rows;
pub mod dedupe;
pub(crate) mod expiry;
pub mod form_token;
pub mod handoff;
#[cfg(test)]
pub(crate) mod map_tx;
pub(crate) mod migrations;
pub(crate) mod overview;
mod page;
pub(crate) mod place;
pub mod rate_limit;
pub(crate) mod relations;
pub(crate) mod secondary;
pub(crate) mod side_by_side;
pub mod state;
pub(crate) mod sweep;
pub(crate) mod text;
pub mod watch;

pub use overview::{RoomStats, StoreStats};
pub use page::{Cursor, CursorParseError, Page};
pub use place::StoreKind;
