//! redb: `Durability::Immediate`, which is its default.

use super::{Batch, OneByOne, Store};
use crate::contest::Session;
use crate::tokens::{Tokens, consume_row, is_consumed};
use ::redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const TOKENS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("tokens");

pub struct Redb {
    path: PathBuf,
    db: Arc<Database>,
    tokens: Arc<Tokens>,
}

impl Redb {
    pub fn create(dir: &Path, tokens: &Arc<Tokens>) -> Result<Self> {
        let path = dir.join("tokens.redb");
        let db = Database::create(&path)?;
        for batch in tokens.keys().chunks(super::PRELOAD_BATCH) {
            let tx = db.begin_write()?;
            {
                let mut table = tx.open_table(TOKENS)?;
                for key in batch {
                    table.insert(&key[..], &tokens.row()[..])?;
                }
            }
            tx.commit()?;
        }
        Ok(Self { path, db: Arc::new(db), tokens: Arc::clone(tokens) })
    }
}

/// Consumes in one transaction, which is durable when this returns.
fn consume(db: &Database, keys: impl Iterator<Item = [u8; 32]>) -> Result<Vec<bool>> {
    let tx = db.begin_write()?;
    let mut answers = Vec::new();
    {
        let mut table = tx.open_table(TOKENS)?;
        for key in keys {
            let row = table.get(&key[..])?.and_then(|row| consume_row(row.value()));
            if let Some(row) = &row {
                table.insert(&key[..], &row[..])?;
            }
            answers.push(row.is_some());
        }
    }
    tx.commit()?;
    Ok(answers)
}

impl Store for Redb {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(OneByOne(|token| {
            let answers = consume(&self.db, std::iter::once(*self.tokens.key(token)))?;
            Ok(answers == [true])
        })))
    }

    fn batch(&self) -> Result<Box<dyn Batch>> {
        Ok(Box::new(Grouping { db: Arc::clone(&self.db), tokens: Arc::clone(&self.tokens) }))
    }

    fn finish(self) -> Result<Vec<bool>> {
        drop(self.db);
        let db = Database::open(&self.path)?;
        let mut consumed = vec![false; self.tokens.len()];
        for row in db.begin_read()?.open_table(TOKENS)?.iter()? {
            let (key, row) = row?;
            if let Some(number) = Tokens::number(key.value()) {
                consumed[number] = is_consumed(row.value());
            }
        }
        Ok(consumed)
    }
}

struct Grouping {
    db: Arc<Database>,
    tokens: Arc<Tokens>,
}

impl Batch for Grouping {
    fn consume(&mut self, tokens: &[u32]) -> Result<Vec<bool>> {
        consume(&self.db, tokens.iter().map(|&token| *self.tokens.key(token)))
    }
}
