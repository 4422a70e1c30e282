//! The log: an append-only pair of segments that makes a write durable before the B-tree has it.

pub(crate) mod batch;
pub(crate) mod frame;
pub(crate) mod segment;
