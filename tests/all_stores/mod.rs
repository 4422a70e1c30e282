//! Random histories over every store of a room, and all that a room then holds.

pub mod dump;
pub mod history;
pub mod ops;
