//! The views of handles in a transaction: `handle.within(tx)`.

use super::Transaction;
use crate::stores::adaptive_rate_limit::{AdaptiveRateLimit, AdaptiveRateLimitTx};
use crate::stores::cache::{Cache, CacheTx};
use crate::stores::dedupe::{Dedupe, DedupeTx};
use crate::stores::form_token::{FormTokens, FormTokensTx};
use crate::stores::handoff::{Handoff, HandoffTx};
use crate::stores::rate_limit::{RateLimit, RateLimitTx};
use crate::stores::state::{State, StateTx};

/// The method of one handle. It stands here, because a store knows no transaction of several.
macro_rules! within {
    ($([$($type:tt)*] &[$($borrowed:lifetime)?] $handle:ty => $view:ty;)*) => {
        $(impl $($type)* $handle {
            /// The view of this store in `tx`, a transaction of the same room, under the options
            /// of this handle: those that [`Transaction`] gives have the defaults. The transaction
            /// becomes at least as durable as this handle asks for.
            ///
            /// When `tx` is of another room, every operation of the view answers
            /// [`ForeignTransaction`](crate::Error::ForeignTransaction); when an option of this
            /// handle was refused, [`InvalidConfig`](crate::Error::InvalidConfig).
            ///
            /// ```
            /// use cloakroom::prelude::*;
            /// use std::time::Duration;
            ///
            /// let room = Cloakroom::builder().open_in_memory()?;
            /// let pages = room.cache::<String>("http").with_max_entries(2);
            /// let states = room.handoff().with_durability(Durability::Sync);
            /// let answer = room.atomically(|tx| {
            ///     for page in ["/a", "/b", "/c"] {
            ///         pages.within(tx).set(page, &"<p>".to_owned(), 60)?;
            ///     }
            ///     states.within(tx).set("order-7", &JsonObject::new(), 600)?;
            ///     pages.within(tx).get("/a")
            /// });
            /// assert_eq!(answer.wait()?, None, "the bounded cache stays bounded");
            /// # Ok::<(), Error>(())
            /// ```
            pub fn within<'b>(&$($borrowed)? self, tx: &'b mut Transaction<'_>) -> $view {
                let (engine, writer) = tx.parts();
                self.view(engine, writer)
            }
        })*
    };
}

within! {
    [] &[] FormTokens => FormTokensTx<'b>;
    [] &[] Handoff => HandoffTx<'b>;
    [<T>] &[] Cache<T> => CacheTx<'b, T>;
    [<T>] &[] Dedupe<T> => DedupeTx<'b, T>;
    [] &['b] RateLimit => RateLimitTx<'b>;
    [] &['b] AdaptiveRateLimit => AdaptiveRateLimitTx<'b>;
    [] &[] State => StateTx<'b>;
}
