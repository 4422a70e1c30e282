//! redb: `Durability::Immediate`, which is its default.

use super::{Batch, OneByOne, Store};
use crate::contest::Session;
use crate::tokens::{Change, Tokens, consume_row, decide, note_row, row};
use crate::work::{Request, State};
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
        let (keys, ends) = tokens.preloaded();
        for batch in keys.chunks(super::PRELOAD_BATCH) {
            let tx = db.begin_write()?;
            {
                let mut table = tx.open_table(TOKENS)?;
                for key in batch {
                    table.insert(&key[..], &row(ends)[..])?;
                }
            }
            tx.commit()?;
        }
        Ok(Self { path, db: Arc::new(db), tokens: Arc::clone(tokens) })
    }
}

/// One transaction, which is durable when this returns.
fn run(db: &Database, tokens: &Tokens, requests: &[Request]) -> Result<Vec<bool>> {
    let tx = db.begin_write()?;
    let mut answers = Vec::with_capacity(requests.len());
    {
        let mut table = tx.open_table(TOKENS)?;
        for request in requests {
            let key = &tokens.key(request.token)[..];
            let change = decide(request.op, || {
                Ok(table.get(key)?.and_then(|row| consume_row(row.value())))
            })?;
            match &change {
                Some(Change::Put(row)) => drop(table.insert(key, &row[..])?),
                Some(Change::Remove) => drop(table.remove(key)?),
                None => {}
            }
            answers.push(change.is_some());
        }
    }
    tx.commit()?;
    Ok(answers)
}

impl Store for Redb {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(OneByOne(|request| Ok(run(&self.db, &self.tokens, &[request])? == [true]))))
    }

    fn batch(&self) -> Result<Box<dyn Batch>> {
        Ok(Box::new(Grouping { db: Arc::clone(&self.db), tokens: Arc::clone(&self.tokens) }))
    }

    fn finish(self) -> Result<Vec<State>> {
        drop(self.db);
        let db = Database::open(&self.path)?;
        let mut states = self.tokens.no_rows();
        for row in db.begin_read()?.open_table(TOKENS)?.iter()? {
            let (key, row) = row?;
            note_row(&mut states, key.value(), row.value());
        }
        Ok(states)
    }
}

struct Grouping {
    db: Arc<Database>,
    tokens: Arc<Tokens>,
}

impl Batch for Grouping {
    fn run(&mut self, requests: &[Request]) -> Result<Vec<bool>> {
        run(&self.db, &self.tokens, requests)
    }
}
