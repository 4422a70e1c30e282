//! A room against a model of it: every answer is compared, and everything that is stored.
//!
//! The [reference](Model) is written from what the stores promise and shares no code with them. A
//! list of [`ModelOp`]s comes from a fuzzer's bytes ([`decode`]) or from a property test, and a
//! [`ModelRun`] takes a room through it.

mod ops;
mod reference;
mod run;

pub use ops::{Ending, ModelOp, Reopening, StoreOp, decode};
pub use reference::{Model, ModelOutcome, Refusal};
pub use run::ModelRun;
