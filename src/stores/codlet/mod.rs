//! What the adapter for the crate `codlet` keeps in a room: its rows, and how they end.
//!
//! The operations are in the adapter (feature `codlet`). This is what every build must know,
//! because a room may hold such rows whatever the program that opens it was built with.

mod lines;
pub(crate) mod row;
pub(crate) mod schema;
pub(crate) mod sweep;
