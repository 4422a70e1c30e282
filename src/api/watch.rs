//! The change feed: what was changed in the stores of a room, in order, as soon as it is durable.
//!
//! ```
//! use cloakroom::Cloakroom;
//! use cloakroom::cache::CacheStore;
//! use cloakroom::watch::{ChangeKind, Filter};
//!
//! let room = Cloakroom::builder().open_in_memory()?;
//! let mut watch = room.watch(Filter::cache("pages").prefix("/news/"))?;
//! room.cache::<String>("pages").set("/news/1", &"<p>".to_owned(), 60).wait()?;
//! let change = watch.recv().unwrap();
//! assert_eq!((change.key.as_str(), change.kind), ("/news/1", ChangeKind::Put));
//! # Ok::<(), cloakroom::Error>(())
//! ```

pub use crate::stores::watch::{Change, ChangeKind, Watch, WatchError, WatchFilter as Filter};
