//! RocksDB, which groups the synced writes of concurrent callers by itself, with its default
//! options. A careful user makes a read and the write that depends on it one step in one of two
//! ways: a lock for the key around both, or an optimistic transaction that is tried again on a
//! conflict.

use super::{Batch, OneByOne, Store};
use crate::contest::Session;
use crate::tokens::{Change, KEY_LEN, Tokens, consume_row, decide, note_row, row};
use crate::work::{Request, State};
use ::rocksdb::{
    DB, ErrorKind, IteratorMode, OptimisticTransactionDB, OptimisticTransactionOptions, Options,
    WriteBatch, WriteOptions,
};
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Far more locks than callers, so that two rarely wait for each other.
const LOCKS: usize = 1 << 12;

pub struct Rocks {
    path: PathBuf,
    engine: Arc<Engine>,
    tokens: Arc<Tokens>,
}

enum Engine {
    /// Each lock is for the keys whose last bytes are its number.
    Locked {
        db: DB,
        locks: Vec<Mutex<()>>,
    },
    Optimistic(OptimisticTransactionDB),
}

/// A write is answered when the log is flushed.
fn durable() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

impl Rocks {
    pub fn create(dir: &Path, tokens: &Arc<Tokens>, optimistic: bool) -> Result<Self> {
        let path = dir.join("rocks");
        let mut options = Options::default();
        options.create_if_missing(true);
        let db = DB::open(&options, &path)?;
        let (keys, ends) = tokens.preloaded();
        for batch in keys.chunks(super::PRELOAD_BATCH) {
            let mut writes = WriteBatch::default();
            batch.iter().for_each(|key| writes.put(key, row(ends)));
            db.write(writes)?;
        }
        db.flush()?;
        let engine = if optimistic {
            drop(db);
            Engine::Optimistic(OptimisticTransactionDB::open(&options, &path)?)
        } else {
            Engine::Locked {
                db,
                locks: std::iter::repeat_with(Mutex::default).take(LOCKS).collect(),
            }
        };
        Ok(Self { path, engine: Arc::new(engine), tokens: Arc::clone(tokens) })
    }
}

/// One request under the lock of its key, durable when this returns.
fn run_locked(db: &DB, locks: &[Mutex<()>], key: &[u8; KEY_LEN], request: Request) -> Result<bool> {
    let lock = usize::from(u16::from_be_bytes([key[KEY_LEN - 2], key[KEY_LEN - 1]])) % locks.len();
    let _deciding = locks[lock].lock().unwrap_or_else(PoisonError::into_inner);
    match decide(request.op, || Ok(db.get_pinned(key)?.and_then(|row| consume_row(&row))))? {
        Some(Change::Put(row)) => db.put_opt(key, row, &durable())?,
        Some(Change::Remove) => db.delete_opt(key, &durable())?,
        None => return Ok(false),
    }
    Ok(true)
}

/// One transaction, durable when this returns.
fn run_optimistic(
    db: &OptimisticTransactionDB,
    tokens: &Tokens,
    requests: &[Request],
) -> Result<Vec<bool>> {
    loop {
        let tx = db.transaction_opt(&durable(), &OptimisticTransactionOptions::default());
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            let key = tokens.key(request.token);
            let change = decide(request.op, || {
                Ok(tx.get_for_update(key, true)?.and_then(|row| consume_row(&row)))
            })?;
            match &change {
                Some(Change::Put(row)) => tx.put(key, row)?,
                Some(Change::Remove) => tx.delete(key)?,
                None => {}
            }
            answers.push(change.is_some());
        }
        match tx.commit() {
            Ok(()) => return Ok(answers),
            Err(error) if matches!(error.kind(), ErrorKind::Busy | ErrorKind::TryAgain) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

impl Store for Rocks {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(OneByOne(|request: Request| match &*self.engine {
            Engine::Locked { db, locks } => {
                run_locked(db, locks, self.tokens.key(request.token), request)
            }
            Engine::Optimistic(db) => Ok(run_optimistic(db, &self.tokens, &[request])? == [true]),
        })))
    }

    fn batch(&self) -> Result<Box<dyn Batch>> {
        let (engine, tokens) = (Arc::clone(&self.engine), Arc::clone(&self.tokens));
        Ok(Box::new(Grouping { engine, tokens }))
    }

    fn finish(self) -> Result<Vec<State>> {
        drop(self.engine);
        let db = DB::open_default(&self.path)?;
        let mut states = self.tokens.no_rows();
        for row in db.iterator(IteratorMode::Start) {
            let (key, row) = row?;
            note_row(&mut states, &key, &row);
        }
        Ok(states)
    }
}

struct Grouping {
    engine: Arc<Engine>,
    tokens: Arc<Tokens>,
}

impl Batch for Grouping {
    fn run(&mut self, requests: &[Request]) -> Result<Vec<bool>> {
        let db = match &*self.engine {
            Engine::Locked { db, .. } => db,
            Engine::Optimistic(db) => return run_optimistic(db, &self.tokens, requests),
        };
        let mut writes = WriteBatch::default();
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            let key = self.tokens.key(request.token);
            let change =
                decide(request.op, || Ok(db.get_pinned(key)?.and_then(|row| consume_row(&row))))?;
            match &change {
                Some(Change::Put(row)) => writes.put(key, row),
                Some(Change::Remove) => writes.delete(key),
                None => {}
            }
            answers.push(change.is_some());
        }
        db.write_opt(writes, &durable())?;
        Ok(answers)
    }
}
