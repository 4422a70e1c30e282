//! fjall: a lock around reading and writing, then `PersistMode::SyncData` outside of it, so that
//! callers may share a flush as far as fjall lets them.

use super::{Batch, OneByOne, Store};
use crate::contest::Session;
use crate::tokens::{Tokens, consume_row, is_consumed};
use ::fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

pub struct Fjall {
    path: PathBuf,
    db: Database,
    table: Keyspace,
    tokens: Arc<Tokens>,
    deciding: Mutex<()>,
}

fn open(path: &Path) -> Result<(Database, Keyspace)> {
    let db = Database::builder(path).open()?;
    let table = db.keyspace("tokens", KeyspaceCreateOptions::default)?;
    Ok((db, table))
}

impl Fjall {
    pub fn create(dir: &Path, tokens: &Arc<Tokens>) -> Result<Self> {
        let path = dir.join("fjall");
        let (db, table) = open(&path)?;
        for batch in tokens.keys().chunks(super::PRELOAD_BATCH) {
            let mut writes = db.batch();
            for key in batch {
                writes.insert(&table, &key[..], &tokens.row()[..]);
            }
            writes.commit()?;
        }
        db.persist(PersistMode::SyncAll)?;
        Ok(Self { path, db, table, tokens: Arc::clone(tokens), deciding: Mutex::new(()) })
    }
}

impl Store for Fjall {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(OneByOne(|token| {
            let key = &self.tokens.key(token)[..];
            {
                let _deciding = self.deciding.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(row) = self.table.get(key)?.and_then(|row| consume_row(&row)) else {
                    return Ok(false);
                };
                self.table.insert(key, &row[..])?;
            }
            self.db.persist(PersistMode::SyncData)?;
            Ok(true)
        })))
    }

    fn batch(&self) -> Result<Box<dyn Batch>> {
        let (db, table, tokens) = (self.db.clone(), self.table.clone(), Arc::clone(&self.tokens));
        Ok(Box::new(Grouping { db, table, tokens }))
    }

    fn finish(self) -> Result<Vec<bool>> {
        drop((self.db, self.table));
        let (_db, table) = open(&self.path)?;
        let mut consumed = vec![false; self.tokens.len()];
        for row in table.iter() {
            let (key, row) = row.into_inner()?;
            if let Some(number) = Tokens::number(&key) {
                consumed[number] = is_consumed(&row);
            }
        }
        Ok(consumed)
    }
}

struct Grouping {
    db: Database,
    table: Keyspace,
    tokens: Arc<Tokens>,
}

impl Batch for Grouping {
    fn consume(&mut self, tokens: &[u32]) -> Result<Vec<bool>> {
        let mut writes = self.db.batch().durability(Some(PersistMode::SyncData));
        let mut answers = Vec::with_capacity(tokens.len());
        for &token in tokens {
            let key = &self.tokens.key(token)[..];
            let row = self.table.get(key)?.and_then(|row| consume_row(&row));
            if let Some(row) = &row {
                writes.insert(&self.table, key, &row[..]);
            }
            answers.push(row.is_some());
        }
        writes.commit()?;
        Ok(answers)
    }
}
