//! canopydb: concurrent write transactions, tried again on a conflict, each committed with a flush.

use super::{Batch, OneByOne, Store};
use crate::contest::Session;
use crate::tokens::{Change, Tokens, consume_row, decide, note_row, row};
use crate::work::{Request, State};
use anyhow::{Context, Result};
use canopydb::{Database, Error};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const TREE: &[u8] = b"tokens";

pub struct Canopy {
    path: PathBuf,
    db: Arc<Database>,
    tokens: Arc<Tokens>,
}

impl Canopy {
    pub fn create(dir: &Path, tokens: &Arc<Tokens>) -> Result<Self> {
        let path = dir.join("canopy");
        std::fs::create_dir(&path)?;
        let db = Database::new(&path)?;
        let (keys, ends) = tokens.preloaded();
        for batch in keys.chunks(super::PRELOAD_BATCH) {
            let tx = db.begin_write()?;
            {
                let mut tree = tx.get_or_create_tree(TREE)?;
                for key in batch {
                    tree.insert(key, &row(ends))?;
                }
            }
            tx.commit_with(false)?;
        }
        db.sync()?;
        db.checkpoint()?;
        Ok(Self { path, db: Arc::new(db), tokens: Arc::clone(tokens) })
    }
}

/// One transaction, which is durable when this returns.
fn run(db: &Database, tokens: &Tokens, requests: &[Request]) -> Result<Vec<bool>> {
    loop {
        let tx = db.begin_write_concurrent()?;
        let mut answers = Vec::with_capacity(requests.len());
        {
            let mut tree = tx.get_or_create_tree(TREE)?;
            for request in requests {
                let key = &tokens.key(request.token)[..];
                let change =
                    decide(request.op, || Ok(tree.get(key)?.and_then(|row| consume_row(&row))))?;
                match &change {
                    Some(Change::Put(row)) => tree.insert(key, row)?,
                    Some(Change::Remove) => drop(tree.delete(key)?),
                    None => {}
                }
                answers.push(change.is_some());
            }
        }
        match tx.commit_with(true) {
            Ok(_) => return Ok(answers),
            Err(Error::WriteConflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

impl Store for Canopy {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(OneByOne(|request| Ok(run(&self.db, &self.tokens, &[request])? == [true]))))
    }

    fn batch(&self) -> Result<Box<dyn Batch>> {
        Ok(Box::new(Grouping { db: Arc::clone(&self.db), tokens: Arc::clone(&self.tokens) }))
    }

    fn finish(self) -> Result<Vec<State>> {
        drop(self.db);
        let db = Database::new(&self.path)?;
        let mut states = self.tokens.no_rows();
        let tx = db.begin_read()?;
        let tree = tx.get_tree(TREE)?.context("the tokens are gone")?;
        for row in tree.iter()? {
            let (key, row) = row?;
            note_row(&mut states, &key, &row);
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
