//! What the views of stores in a transaction have in common.

use crate::engine::access::Writer;
use crate::error::{Error, Result};

/// The transaction behind the view of a store, or why the view refuses every operation.
pub(crate) struct StoreTx<'a>(Result<&'a mut dyn Writer>);

impl<'a> StoreTx<'a> {
    pub(crate) fn new(tx: &'a mut dyn Writer) -> Self {
        Self(Ok(tx))
    }

    /// A view whose operations all answer `error`.
    pub(crate) fn refused(error: Error) -> Self {
        Self(Err(error))
    }

    /// The same, refused if an option was.
    pub(crate) fn with(self, checked: Result<()>) -> Self {
        match (self.0, checked) {
            (Ok(_), Err(refused)) => Self(Err(refused)),
            (tx, _) => Self(tx),
        }
    }

    /// The transaction, for an operation.
    pub(crate) fn get(&mut self) -> Result<&mut dyn Writer> {
        match &mut self.0 {
            Ok(tx) => Ok(*tx),
            Err(refused) => Err(refused.clone()),
        }
    }
}
