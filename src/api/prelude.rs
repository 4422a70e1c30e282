//! Every name that a program over the stores writes, for one import.
//!
//! ```
//! use cloakroom::prelude::*;
//!
//! let room = Cloakroom::builder().open_in_memory()?;
//! room.cache::<u32>("primes").set("third", &5, 60).wait()?;
//! assert_eq!(room.cache::<u32>("primes").get("third").wait()?, Some(5));
//! # Ok::<(), Error>(())
//! ```
//!
//! A name that is imported by itself takes precedence over one of the prelude, so
//! `use axum::extract::State;` beside it means axum's. Entries, statistics and reports are not in
//! it: each is in the module of what it is about.
//!
//! # Types with a fixed shape
//! What callers build or match is `#[non_exhaustive]`, with constructors and `with_` methods, so
//! that a later version can add to it. Some types are not, because the interfaces that they come
//! from fix their shape: programs in use build them by literal, match them whole, or answer them
//! from drivers of their own. These are [`FormTokenRecord`], [`TokenSubject`],
//! [`TokenConsumeOutcome`] (and [`Outcome`](crate::form_token::Outcome), which mirrors it),
//! [`Claim`], [`Registration`], [`RateLimitConfig`], [`AdaptiveConfig`], [`Priority`],
//! [`Identity`], [`StateRecord`], [`SlotExpectation`], [`StateConfig`] and [`Page`]. They have
//! constructors as well, which read better than a literal with every field.

#[doc(no_inline)]
pub use super::adaptive_rate_limit::{
    AdaptiveConfig, AdaptiveRateLimit, AdaptiveRateLimitStatus, AdaptiveRateLimitStore, Priority,
};
#[doc(no_inline)]
pub use super::cache::{Bytes, Cache, CacheStore, Ttl};
#[doc(no_inline)]
pub use super::dedupe::{Dedupe, DedupeStore, Job, JobGuard, JobId, Registration};
#[doc(no_inline)]
pub use super::form_token::{
    FormTokenRecord, FormTokenStore, FormTokens, LookupKey, TokenConsumeOutcome, TokenSubject,
    classify_token_consume,
};
#[doc(no_inline)]
pub use super::handoff::{Claim, ClaimId, Handoff, HandoffStateStore, JsonObject, RawClaim};
#[doc(no_inline)]
pub use super::page::{Cursor, Page};
#[doc(no_inline)]
pub use super::rate_limit::{RateLimit, RateLimitConfig, RateLimitStatus, RateLimitStore};
#[doc(no_inline)]
pub use super::state::{
    EventId, Identity, ListScope, SlotExpectation, State, StateError, StateRecord, StateStore,
    validate_identity, validate_list_kind, validate_record,
};
#[cfg(any(test, feature = "conformance"))]
#[doc(no_inline)]
pub use crate::conformance;
#[doc(no_inline)]
pub use crate::drivers::{self, StateConfig};
#[doc(no_inline)]
pub use crate::{
    Answer, Builder, Cloakroom, Clock, Durability, Error, ManualClock, Pending, Result,
    SystemClock, Transaction,
};
