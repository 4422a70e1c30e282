//! SQLite: WAL, `synchronous=FULL`, one conditional `UPDATE`.

use super::{Batch, OneByOne, Store};
use crate::contest::Session;
use crate::tokens::{PURPOSE, SUBJECT, Tokens, now};
use crate::work::{Op, Request, State};
use anyhow::{Result, ensure};
use rusqlite::{Connection, TransactionBehavior, params};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const TABLE: &str = "CREATE TABLE token (lookup_key BLOB PRIMARY KEY, subject TEXT NOT NULL, \
                     purpose TEXT NOT NULL, padding BLOB NOT NULL, expires_at INTEGER NOT NULL, \
                     consumed_at INTEGER) WITHOUT ROWID";
const INSERT: &str = "INSERT INTO token VALUES (?1, ?2, ?3, ?4, ?5, NULL)";
const CONSUME: &str = "UPDATE token SET consumed_at = ?2 WHERE lookup_key = ?1 AND \
                       consumed_at IS NULL AND expires_at > ?2 AND subject = ?3 AND purpose = ?4";
const REMOVE: &str = "DELETE FROM token WHERE lookup_key = ?1";

pub struct Sqlite {
    path: PathBuf,
    tokens: Arc<Tokens>,
    /// All threads use this connection, unless each opens its own.
    shared: Mutex<Connection>,
    connection_per_thread: bool,
}

fn connect(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    ensure!(mode == "wal", "SQLite did not switch to its log but to {mode}");
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.busy_timeout(Duration::from_secs(60))?;
    Ok(connection)
}

fn insert(connection: &Connection, key: &[u8], ends: u64) -> Result<bool> {
    let mut statement = connection.prepare_cached(INSERT)?;
    Ok(statement.execute(params![key, SUBJECT, PURPOSE, [0_u8; 56], ends.cast_signed()])? == 1)
}

fn run(connection: &Connection, tokens: &Tokens, request: Request) -> Result<bool> {
    let key = tokens.key(request.token);
    let rows = match request.op {
        Op::Insert { ends } => return insert(connection, key, ends),
        Op::Consume => connection.prepare_cached(CONSUME)?.execute(params![
            key,
            now().cast_signed(),
            SUBJECT,
            PURPOSE
        ])?,
        Op::Remove => connection.prepare_cached(REMOVE)?.execute(params![key])?,
    };
    Ok(rows == 1)
}

impl Sqlite {
    pub fn create(dir: &Path, tokens: &Arc<Tokens>, connection_per_thread: bool) -> Result<Self> {
        let path = dir.join("tokens.sqlite");
        let mut connection = connect(&path)?;
        connection.execute_batch(TABLE)?;
        let (keys, ends) = tokens.preloaded();
        for batch in keys.chunks(super::PRELOAD_BATCH) {
            let tx = connection.transaction()?;
            for key in batch {
                insert(&tx, key, ends)?;
            }
            tx.commit()?;
        }
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(Self {
            path,
            tokens: Arc::clone(tokens),
            shared: Mutex::new(connection),
            connection_per_thread,
        })
    }
}

impl Store for Sqlite {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        if self.connection_per_thread {
            let connection = connect(&self.path)?;
            let run = move |request| run(&connection, &self.tokens, request);
            return Ok(Box::new(OneByOne(run)));
        }
        Ok(Box::new(OneByOne(|request| {
            let connection = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
            run(&connection, &self.tokens, request)
        })))
    }

    fn batch(&self) -> Result<Box<dyn Batch>> {
        Ok(Box::new(Grouping {
            connection: connect(&self.path)?,
            tokens: Arc::clone(&self.tokens),
        }))
    }

    fn finish(self) -> Result<Vec<State>> {
        drop(self.shared);
        let connection = connect(&self.path)?;
        let mut states = self.tokens.no_rows();
        let mut statement =
            connection.prepare("SELECT lookup_key, consumed_at IS NOT NULL FROM token")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if let Some(number) = Tokens::number(row.get_ref(0)?.as_blob()?) {
                states[number] = State::stored(row.get(1)?);
            }
        }
        Ok(states)
    }
}

struct Grouping {
    connection: Connection,
    tokens: Arc<Tokens>,
}

impl Batch for Grouping {
    fn run(&mut self, requests: &[Request]) -> Result<Vec<bool>> {
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let answers = requests
            .iter()
            .map(|&request| run(&tx, &self.tokens, request))
            .collect::<Result<_>>()?;
        tx.commit()?;
        Ok(answers)
    }
}
