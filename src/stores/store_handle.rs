//! What the handles of all stores have in common.

use super::store_tx::StoreTx;
use crate::Pending;
use crate::durability::Durability;
use crate::engine::access::Writer;
use crate::engine::{Engine, Snapshot, Tx};
use crate::error::{Error, Result};
use crate::tables::Table;

/// The engine of a room, the durability of a handle's answers, and whether its options can be used.
///
/// An option that is refused makes every call answer so: the methods that set options answer the
/// handle, so that they can be chained, and check what they are given.
#[derive(Debug, Clone)]
pub(crate) struct StoreHandle {
    engine: Engine,
    durability: Durability,
    /// The first option that was refused.
    refused: Option<Error>,
}

impl StoreHandle {
    /// A handle with this durability.
    pub(crate) fn new(engine: Engine, durability: Durability) -> Self {
        Self { engine, durability, refused: None }.with(durability.check())
    }

    /// The same, whose answers wait for this durability.
    pub(crate) fn with_durability(self, durability: Durability) -> Self {
        Self { durability, ..self }.with(durability.check())
    }

    /// The same, refused if an option was.
    pub(crate) fn with(mut self, checked: Result<()>) -> Self {
        if self.refused.is_none() {
            self.refused = checked.err();
        }
        self
    }

    pub(crate) fn durability(&self) -> Durability {
        self.durability
    }

    /// The engine, whatever the options are.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The engine, for a call.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] when an option was refused.
    pub(crate) fn checked(&self) -> Result<&Engine> {
        match &self.refused {
            None => Ok(&self.engine),
            Some(refused) => Err(refused.clone()),
        }
    }

    /// Runs an operation that writes; see [`Engine::transact`].
    pub(crate) fn transact<R, E: From<Error>>(
        &self,
        prefetch: &[(Table, &[u8])],
        operation: impl FnOnce(&mut Tx<'_>) -> Result<R, E>,
    ) -> Pending<R, E> {
        match self.checked() {
            Ok(engine) => engine.transact(self.durability, prefetch, operation),
            Err(refused) => Pending::ready(Err(refused.into())),
        }
    }

    /// Runs an operation that reads; see [`Engine::read`].
    pub(crate) fn read<R, E: From<Error>>(
        &self,
        operation: impl FnOnce(&mut Snapshot) -> Result<R, E>,
    ) -> Pending<R, E> {
        match self.checked() {
            Ok(engine) => engine.read(self.durability, operation),
            Err(refused) => Pending::ready(Err(refused.into())),
        }
    }

    /// The view of this handle's store in `tx`, a transaction of `engine`, which is then at least
    /// as durable as the handle asks for. It refuses every operation when `engine` is that of
    /// another room, and when an option of the handle was refused.
    pub(crate) fn within<'a>(&self, engine: &Engine, tx: &'a mut dyn Writer) -> StoreTx<'a> {
        match self.checked() {
            Ok(own) if own.is(engine) => {
                tx.require(self.durability);
                StoreTx::new(tx)
            }
            Ok(_) => StoreTx::refused(Error::ForeignTransaction),
            Err(refused) => StoreTx::refused(refused),
        }
    }
}
