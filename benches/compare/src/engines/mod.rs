//! What is compared. Each engine flushes before it answers, keeps its defaults otherwise, and makes
//! the same decision about a token: not consumed, not expired, subject and purpose as expected.

pub mod canopy;
pub mod cloakroom;
pub mod fjall;
pub mod lmdb;
pub mod redb;
pub mod redis;
#[cfg(feature = "rocksdb")]
pub mod rocksdb;
pub mod sqlite;

use crate::contest::{Contender, Session};
use crate::work::{Request, State};
use anyhow::Result;

/// How many tokens one transaction of the preload inserts.
pub const PRELOAD_BATCH: usize = 5_000;

/// A store of tokens, loaded.
pub trait Store: Sync + Send {
    /// One thread's way to work, one durable transaction for each request.
    fn session(&self) -> Result<Box<dyn Session + '_>>;

    /// The way of a thread that works for others, with many requests in one durable transaction.
    fn batch(&self) -> Result<Box<dyn Batch>>;

    /// Whether tokens whose life is over disappear without being removed.
    fn expires(&self) -> bool {
        false
    }

    /// The number of the process that works for this one, if there is one.
    fn server(&self) -> Option<u32> {
        None
    }

    /// Closes, opens what is on the disk, and answers what is there of each token.
    fn finish(self) -> Result<Vec<State>>;
}

/// Does many requests in one durable transaction.
pub trait Batch: Send {
    /// Whether each request was granted. The requests are for different tokens.
    fn run(&mut self, requests: &[Request]) -> Result<Vec<bool>>;
}

/// A store as its users run it: one transaction for each request.
pub struct Alone<S>(pub S);

impl<S: Store> Contender for Alone<S> {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        self.0.session()
    }

    fn cleaner(&self) -> Result<Option<Box<dyn Batch>>> {
        cleaner(&self.0)
    }

    fn server(&self) -> Option<u32> {
        self.0.server()
    }

    fn finish(self: Box<Self>) -> Result<Vec<State>> {
        self.0.finish()
    }
}

/// What removes tokens whose life is over, if the store needs that.
pub fn cleaner(store: &impl Store) -> Result<Option<Box<dyn Batch>>> {
    if store.expires() { Ok(None) } else { store.batch().map(Some) }
}

/// A session that is a function from a request to whether it was granted.
pub struct OneByOne<F>(pub F);

impl<F: FnMut(Request) -> Result<bool>> Session for OneByOne<F> {
    fn submit(&mut self, request: Request, done: &mut Vec<Request>) -> Result<()> {
        anyhow::ensure!((self.0)(request)?, "{request:?} was refused");
        done.push(request);
        Ok(())
    }
}
