//! The stores: what a caller keeps in a room, each over the engine's transactions.
//!
//! What this folder promises:
//!
//! 1. Each operation of a store is written once, over a [`Reader`](crate::engine::access::Reader)
//!    or [`Writer`](crate::engine::access::Writer). A trait method runs it in a transaction of its
//!    own; the view that a transaction lends runs the same function among others.
//! 2. An operation checks everything that it was given before it stages its first row, so that an
//!    error leaves nothing behind even in the middle of a larger transaction.
//! 3. A row that is expired by time is absent to every answer, whether or not the sweeper has
//!    removed it.
//! 4. The row of the expiry index changes in the same transaction as the row that it is about.
//! 5. What sweeps a row reads it again, decides by it alone, and removes every row that belongs to
//!    it.

pub mod adaptive_rate_limit;
pub mod cache;
pub(crate) mod codlet;
pub(crate) mod constraints;
pub mod dedupe;
pub(crate) mod derived;
pub(crate) mod dump;
#[cfg(test)]
mod eighth;
pub(crate) mod expiry;
pub mod form_token;
pub(crate) mod frame;
pub mod handoff;
pub(crate) mod hidden;
pub(crate) mod length;
pub(crate) mod lines;
#[cfg(test)]
pub(crate) mod map_tx;
pub(crate) mod migrations;
pub(crate) mod named;
pub(crate) mod owner;
mod page;
pub mod rate_limit;
pub(crate) mod registry;
pub(crate) mod row_check;
pub(crate) mod schema;
pub(crate) mod span;
pub mod state;
mod states;
pub(crate) mod stats;
pub(crate) mod store_handle;
pub(crate) mod store_tx;
pub(crate) mod sweep;
mod time_line;
pub(crate) mod validation;
pub mod watch;

pub use owner::StoreKind;
pub use page::{Cursor, CursorParseError, Page};
pub(crate) use states::StoreStates;
pub use stats::{RoomStats, StoreStats};
