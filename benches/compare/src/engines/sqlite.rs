//! SQLite: WAL, `synchronous=FULL`, one conditional `UPDATE`.

use super::{Batch, OneByOne, Store};
use crate::contest::Session;
use crate::tokens::{PURPOSE, SUBJECT, Tokens, now};
use anyhow::{Result, ensure};
use rusqlite::{Connection, TransactionBehavior, params};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const CONSUME: &str = "UPDATE token SET consumed_at = ?2 WHERE lookup_key = ?1 AND consumed_at IS NULL \
                       AND expires_at > ?2 AND subject = ?3 AND purpose = ?4";

pub struct Sqlite {
    path: PathBuf,
    tokens: Arc<Tokens>,
    /// All threads use this connection, unless each opens its own.
    shared: Mutex<Connection>,
    connection_per_thread: bool,
}

fn connect(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    ensure!(mode == "wal", "SQLite did not switch to its log but to {mode}");
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.busy_timeout(Duration::from_secs(60))?;
    Ok(connection)
}

fn consume(connection: &Connection, key: &[u8]) -> Result<bool> {
    let mut statement = connection.prepare_cached(CONSUME)?;
    Ok(statement.execute(params![key, now().cast_signed(), SUBJECT, PURPOSE])? == 1)
}

impl Sqlite {
    pub fn create(dir: &Path, tokens: &Arc<Tokens>, connection_per_thread: bool) -> Result<Self> {
        let path = dir.join("tokens.sqlite");
        let mut connection = connect(&path)?;
        connection.execute_batch(
            "CREATE TABLE token (lookup_key BLOB PRIMARY KEY, subject TEXT NOT NULL, purpose TEXT NOT NULL, \
             padding BLOB NOT NULL, expires_at INTEGER NOT NULL, consumed_at INTEGER) WITHOUT ROWID",
        )?;
        for batch in tokens.keys().chunks(super::PRELOAD_BATCH) {
            let tx = connection.transaction()?;
            for key in batch {
                tx.prepare_cached("INSERT INTO token VALUES (?1, ?2, ?3, ?4, ?5, NULL)")?
                    .execute(params![key, SUBJECT, PURPOSE, [0_u8; 56], tokens.expires_at.cast_signed()])?;
            }
            tx.commit()?;
        }
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(Self { path, tokens: Arc::clone(tokens), shared: Mutex::new(connection), connection_per_thread })
    }
}

impl Store for Sqlite {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        if self.connection_per_thread {
            let connection = connect(&self.path)?;
            return Ok(Box::new(OneByOne(move |token| consume(&connection, self.tokens.key(token)))));
        }
        Ok(Box::new(OneByOne(|token| {
            let connection = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
            consume(&connection, self.tokens.key(token))
        })))
    }

    fn batch(&self) -> Result<Box<dyn Batch>> {
        Ok(Box::new(Grouping { connection: connect(&self.path)?, tokens: Arc::clone(&self.tokens) }))
    }

    fn finish(self) -> Result<Vec<bool>> {
        drop(self.shared);
        let connection = connect(&self.path)?;
        let mut consumed = vec![false; self.tokens.len()];
        let mut statement =
            connection.prepare("SELECT lookup_key FROM token WHERE consumed_at IS NOT NULL")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if let Some(number) = Tokens::number(row.get_ref(0)?.as_blob()?) {
                consumed[number] = true;
            }
        }
        Ok(consumed)
    }
}

struct Grouping {
    connection: Connection,
    tokens: Arc<Tokens>,
}

impl Batch for Grouping {
    fn consume(&mut self, tokens: &[u32]) -> Result<Vec<bool>> {
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let answers =
            tokens.iter().map(|&token| consume(&tx, self.tokens.key(token))).collect::<Result<_>>()?;
        tx.commit()?;
        Ok(answers)
    }
}
