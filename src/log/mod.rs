//! The log: an append-only pair of segments that makes a write durable before the B-tree has it.
//!
//! Recovery is [`scan`] (what is there), then [`plan`] (what that means), then a separate step that changes the
//! file. Both are pure.

pub(crate) mod batch;
pub(crate) mod frame;
pub(crate) mod plan;
pub(crate) mod scan;
pub(crate) mod segment;

#[cfg(test)]
mod protocol_tests;
