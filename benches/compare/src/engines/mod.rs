//! What is compared. Each engine flushes before it answers, keeps its defaults otherwise, and makes
//! the same decision about a token: not consumed, not expired, subject and purpose as expected.

pub mod canopy;
pub mod cloakroom;
pub mod fjall;
pub mod lmdb;
pub mod redb;
pub mod redis;
pub mod sqlite;

use crate::contest::{Contender, Session};
use anyhow::Result;

/// How many tokens one transaction of the preload inserts.
pub const PRELOAD_BATCH: usize = 5_000;

/// A store of tokens, loaded.
pub trait Store: Sync + Send {
    /// One thread's way to consume, one durable transaction each.
    fn session(&self) -> Result<Box<dyn Session + '_>>;

    /// The way of a thread that consumes for others, many in one durable transaction.
    fn batch(&self) -> Result<Box<dyn Batch>>;

    /// Closes, opens what is on the disk, and says of each token whether it is consumed.
    fn finish(self) -> Result<Vec<bool>>;
}

/// Consumes many tokens in one durable transaction.
pub trait Batch: Send {
    /// Whether each of `tokens` was consumed by this call.
    fn consume(&mut self, tokens: &[u32]) -> Result<Vec<bool>>;
}

/// A store as its users run it: one transaction per consume.
pub struct Alone<S>(pub S);

impl<S: Store> Contender for Alone<S> {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        self.0.session()
    }

    fn finish(self: Box<Self>) -> Result<Vec<bool>> {
        self.0.finish()
    }
}

/// A session that is a function from a token to whether it was consumed.
pub struct OneByOne<F>(pub F);

impl<F: FnMut(u32) -> Result<bool>> Session for OneByOne<F> {
    fn consume(&mut self, token: u32, done: &mut Vec<u32>) -> Result<()> {
        anyhow::ensure!((self.0)(token)?, "token {token} was refused");
        done.push(token);
        Ok(())
    }
}
