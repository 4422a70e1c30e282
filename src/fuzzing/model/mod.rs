//! A comparison of a room with a model of it: every answer, and everything that is stored.
//!
//! The [reference](Model) is written from the contract of the stores and shares no code with them.
//! A list of [`ModelOp`]s comes from a fuzzer's bytes ([`decode`]) or from a property test, and a
//! [`ModelRun`] applies it to a room.

mod calls;
mod ops;
mod reference;
mod run;

pub use ops::{Ending, ModelOp, Reopening, StoreOp, decode};
pub use reference::{Model, ModelOutcome, Refusal};
pub use run::ModelRun;
