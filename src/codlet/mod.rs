//! A room as the storage of the crate [`codlet`](https://docs.rs/codlet): one-time codes, sessions,
//! form tokens and the limiting of guesses (feature `codlet`).
//!
//! [`CodletStore`] is one value that implements the four storage traits of that crate, and the
//! optional one for admin panels, over the one file of a [`Cloakroom`](crate::Cloakroom):
//!
//! ```
//! use cloakroom::Cloakroom;
//! use codlet::{FormTokenManager, NoopAuditSink, SecretHasher, StaticKeyProvider};
//! use std::time::Duration;
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("edge.cloak");
//! # let secret = vec![7; 32];
//! let room = Cloakroom::open(&path)?;
//! let store = room.codlet();
//! let hasher = SecretHasher::new(StaticKeyProvider::single("v1", secret).unwrap());
//! let ttl = Duration::from_secs(3_600);
//! let forms = FormTokenManager::new(store.clone(), hasher, store.clock(), NoopAuditSink, ttl);
//! # let _ = forms;
//! # Ok::<(), cloakroom::Error>(())
//! ```
//!
//! # What is the same, and what is said more exactly
//! - A call has taken its effect, in order, when it returns its future; awaiting it waits for the
//!   durability of the answer. Of any number of racing `claim_code` or `consume_form_token` calls
//!   exactly one wins.
//! - Form tokens are those of [`form_tokens`](crate::Cloakroom::form_tokens): `Replay` is answered
//!   until a grace after the expiry, and a caller without a resource never matches a token that has
//!   one. The first candidate that exists decides.
//! - Codes and sessions are found whatever became of them (used, revoked, expired), as the traits
//!   demand, until a [retention](CodletStore::with_retention) after their expiry. Then they are
//!   gone, swept or not.
//! - A record id, like a lookup key, is unique among the codes and among the sessions; a second
//!   insert is refused.
//! - Failures are counted in an exact sliding window by the room's clock.
//! - `FormTokenManager::consume` answers `Ok(None)` to the caller that consumes a token first, and
//!   to a replay that comes before `set_result`. Where that makes a difference, consume and store
//!   the result in one [transaction](CodletTx), whose answers tell the two apart.
//! - An error names what failed and never what was stored: no key, id, subject or grant.

mod code;
mod convert;
mod failures;
mod options;
mod records;
mod session;
mod store;
mod tx;

pub use options::DEFAULT_RETENTION;
pub use store::{CodletClock, CodletStore};
pub use tx::CodletTx;
