//! One-file, ACID storage for what is handed over once.

#![deny(missing_docs, unsafe_code)]
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod clock;
mod codec;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod durability;
mod engine;
mod error;
pub mod limits;
mod storage;
mod stores;
mod tables;

pub use clock::{Clock, ManualClock, SystemClock};
pub use durability::Durability;
pub use error::{Error, Result};
pub use stores::form_token::{
    FormTokenEntry, FormTokenRecord, FormTokenStats, FormTokenStore, FormTokens, FormTokensTx, LookupKey,
    TokenConsumeOutcome, TokenSubject, TokenUse, classify_token_consume,
};
pub use stores::handoff::{
    Claim, ClaimId, ClaimIdParseError, Handoff, HandoffEntry, HandoffStateStore, HandoffStats, HandoffTx,
    JsonObject, MAX_STATE_DEPTH,
};
pub use stores::{Cursor, CursorParseError, Page};
