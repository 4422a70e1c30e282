//! Random histories over every store of a room, and all that a room then holds.
#![allow(dead_code, reason = "every test crate uses a part of it")]

pub mod dump;
pub mod history;
pub mod ops;
