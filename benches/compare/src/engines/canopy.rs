//! canopydb: concurrent write transactions, tried again on a conflict, each committed with a flush.

use super::{Batch, OneByOne, Store};
use crate::contest::Session;
use crate::tokens::{Tokens, consume_row, is_consumed};
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
        for batch in tokens.keys().chunks(super::PRELOAD_BATCH) {
            let tx = db.begin_write()?;
            {
                let mut tree = tx.get_or_create_tree(TREE)?;
                for key in batch {
                    tree.insert(key, &tokens.row())?;
                }
            }
            tx.commit_with(false)?;
        }
        db.sync()?;
        db.checkpoint()?;
        Ok(Self { path, db: Arc::new(db), tokens: Arc::clone(tokens) })
    }
}

/// Consumes in one transaction, which is durable when this returns.
fn consume(db: &Database, keys: impl Iterator<Item = [u8; 32]> + Clone) -> Result<Vec<bool>> {
    loop {
        let tx = db.begin_write_concurrent()?;
        let mut answers = Vec::new();
        {
            let mut tree = tx.get_or_create_tree(TREE)?;
            for key in keys.clone() {
                let row = tree.get(&key)?.and_then(|row| consume_row(&row));
                if let Some(row) = &row {
                    tree.insert(&key, row)?;
                }
                answers.push(row.is_some());
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
        let db = Database::new(&self.path)?;
        let mut consumed = vec![false; self.tokens.len()];
        let tx = db.begin_read()?;
        let tree = tx.get_tree(TREE)?.context("the tokens are gone")?;
        for row in tree.iter()? {
            let (key, row) = row?;
            if let Some(number) = Tokens::number(&key) {
                consumed[number] = is_consumed(&row);
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
