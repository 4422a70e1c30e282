//! The room's time line as a table among the others. The engine writes and reads its rows, and they
//! belong to no store.

pub(super) mod schema;
pub(super) mod sweep;
