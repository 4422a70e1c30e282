//! LMDB through heed, with its default flags: every commit is flushed.

use super::{Batch, OneByOne, Store};
use crate::contest::Session;
use crate::tokens::{Change, Tokens, consume_row, decide, note_row, row};
use crate::work::{Request, State};
use anyhow::{Context, Result};
use heed::types::Bytes;
use heed::{CommitOrAbort, Env, EnvOpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Address space set aside for the file, far more than any run fills.
const MAP_SIZE: usize = 16 << 30;

#[derive(Clone)]
struct Table {
    env: Env,
    rows: heed::Database<'static, Bytes, Bytes>,
}

pub struct Lmdb {
    path: PathBuf,
    table: Table,
    tokens: Arc<Tokens>,
}

fn open(path: &Path) -> Result<Table> {
    std::fs::create_dir_all(path)?;
    // SAFETY: the directory is this run's own, so no one else changes the file under the map.
    let env = unsafe { EnvOpenOptions::new().map_size(MAP_SIZE).open(path)? };
    let tx = env.write_txn()?;
    let rows = env
        .create_databases_and_commit(tx, |opener, tx| {
            opener.create_database(tx, None).map(CommitOrAbort::<_, ()>::Commit)
        })?
        .unwrap_commit();
    Ok(Table { env, rows })
}

impl Table {
    /// One transaction, which is durable when this returns.
    fn run(&self, tokens: &Tokens, requests: &[Request]) -> Result<Vec<bool>> {
        let mut tx = self.env.write_txn()?;
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            let key = &tokens.key(request.token)[..];
            let change = decide(request.op, || Ok(self.rows.get(&tx, key)?.and_then(consume_row)))?;
            match &change {
                Some(Change::Put(row)) => self.rows.put(&mut tx, key, row)?,
                Some(Change::Remove) => drop(self.rows.delete(&mut tx, key)?),
                None => {}
            }
            answers.push(change.is_some());
        }
        tx.commit()?;
        Ok(answers)
    }
}

impl Lmdb {
    pub fn create(dir: &Path, tokens: &Arc<Tokens>) -> Result<Self> {
        let path = dir.join("lmdb");
        let table = open(&path)?;
        let (keys, ends) = tokens.preloaded();
        for batch in keys.chunks(super::PRELOAD_BATCH) {
            let mut tx = table.env.write_txn()?;
            for key in batch {
                table.rows.put(&mut tx, key, &row(ends))?;
            }
            tx.commit()?;
        }
        Ok(Self { path, table, tokens: Arc::clone(tokens) })
    }
}

impl Store for Lmdb {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(OneByOne(|request| Ok(self.table.run(&self.tokens, &[request])? == [true]))))
    }

    fn batch(&self) -> Result<Box<dyn Batch>> {
        Ok(Box::new(Grouping { table: self.table.clone(), tokens: Arc::clone(&self.tokens) }))
    }

    fn finish(self) -> Result<Vec<State>> {
        self.table.env.prepare_for_closing().wait();
        let table = open(&self.path).context("reopening")?;
        let mut states = self.tokens.no_rows();
        let tx = table.env.read_txn()?;
        for row in table.rows.iter(&tx)? {
            let (key, row) = row?;
            note_row(&mut states, key, row);
        }
        drop(tx);
        table.env.prepare_for_closing().wait();
        Ok(states)
    }
}

struct Grouping {
    table: Table,
    tokens: Arc<Tokens>,
}

impl Batch for Grouping {
    fn run(&mut self, requests: &[Request]) -> Result<Vec<bool>> {
        self.table.run(&self.tokens, requests)
    }
}
