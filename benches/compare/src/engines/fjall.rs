//! fjall: a lock around reading and writing, then `PersistMode::SyncData` outside of it, so that
//! callers may share a flush as far as fjall lets them.

use super::{Batch, OneByOne, Store};
use crate::contest::Session;
use crate::tokens::{Change, Tokens, consume_row, decide, note_row, row};
use crate::work::{Request, State};
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
        let (keys, ends) = tokens.preloaded();
        for batch in keys.chunks(super::PRELOAD_BATCH) {
            let mut writes = db.batch();
            for key in batch {
                writes.insert(&table, &key[..], &row(ends)[..]);
            }
            writes.commit()?;
        }
        db.persist(PersistMode::SyncAll)?;
        Ok(Self { path, db, table, tokens: Arc::clone(tokens), deciding: Mutex::new(()) })
    }
}

fn change(table: &Keyspace, request: Request, key: &[u8]) -> Result<Option<Change>> {
    decide(request.op, || Ok(table.get(key)?.and_then(|row| consume_row(&row))))
}

impl Store for Fjall {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(OneByOne(|request: Request| {
            let key = &self.tokens.key(request.token)[..];
            {
                let _deciding = self.deciding.lock().unwrap_or_else(PoisonError::into_inner);
                match change(&self.table, request, key)? {
                    Some(Change::Put(row)) => self.table.insert(key, &row[..])?,
                    Some(Change::Remove) => self.table.remove(key)?,
                    None => return Ok(false),
                }
            }
            self.db.persist(PersistMode::SyncData)?;
            Ok(true)
        })))
    }

    fn batch(&self) -> Result<Box<dyn Batch>> {
        let (db, table, tokens) = (self.db.clone(), self.table.clone(), Arc::clone(&self.tokens));
        Ok(Box::new(Grouping { db, table, tokens }))
    }

    fn finish(self) -> Result<Vec<State>> {
        drop((self.db, self.table));
        let (_db, table) = open(&self.path)?;
        let mut states = self.tokens.no_rows();
        for row in table.iter() {
            let (key, row) = row.into_inner()?;
            note_row(&mut states, &key, &row);
        }
        Ok(states)
    }
}

struct Grouping {
    db: Database,
    table: Keyspace,
    tokens: Arc<Tokens>,
}

impl Batch for Grouping {
    fn run(&mut self, requests: &[Request]) -> Result<Vec<bool>> {
        let mut writes = self.db.batch().durability(Some(PersistMode::SyncData));
        let mut answers = Vec::with_capacity(requests.len());
        for &request in requests {
            let key = &self.tokens.key(request.token)[..];
            let change = change(&self.table, request, key)?;
            match &change {
                Some(Change::Put(row)) => writes.insert(&self.table, key, &row[..]),
                Some(Change::Remove) => writes.remove(&self.table, key),
                None => {}
            }
            answers.push(change.is_some());
        }
        writes.commit()?;
        Ok(answers)
    }
}
