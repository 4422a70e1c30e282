//! The rows of the table: the disk, the bare loops, and every way to run an engine.

use crate::Load;
use crate::bare::{Bare, Wake};
use crate::contest::Contender;
use crate::disk::Flush;
use crate::engines::canopy::Canopy;
use crate::engines::cloakroom::Room;
use crate::engines::fjall::Fjall;
use crate::engines::lmdb::Lmdb;
use crate::engines::redb::Redb;
use crate::engines::redis::Redis;
#[cfg(feature = "rocksdb")]
use crate::engines::rocksdb::Rocks;
use crate::engines::sqlite::Sqlite;
use crate::engines::{Alone, Store};
use crate::group::Grouped;
use crate::tokens::Tokens;
use anyhow::Result;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What a contender is created from.
pub struct Setup<'a> {
    pub dir: &'a Path,
    pub tokens: &'a Arc<Tokens>,
    pub load: Load,
    /// How much longer a flush takes than the disk needs.
    pub flush_delay: Duration,
}

type Create = fn(&Setup<'_>) -> Result<Box<dyn Contender>>;

/// What a row of the table measures.
pub enum Kind {
    /// The disk alone, by one thread.
    Raw(Flush),
    /// Something with callers. `pipelines` when a caller may have several requests in flight.
    Callers { create: Create, pipelines: bool },
}

pub struct Row {
    pub name: &'static str,
    pub title: &'static str,
    pub kind: Kind,
}

/// A row for callers that wait for each answer.
fn waiting(name: &'static str, title: &'static str, create: Create) -> Row {
    Row { name, title, kind: Kind::Callers { create, pipelines: false } }
}

/// A row for callers that may have several requests in flight, too.
fn pipelining(name: &'static str, title: &'static str, create: Create) -> Row {
    Row { name, title, kind: Kind::Callers { create, pipelines: true } }
}

fn bare(setup: &Setup<'_>, wake: Wake) -> Result<Box<dyn Contender>> {
    let Setup { dir, tokens, load, flush_delay } = *setup;
    Ok(Box::new(Bare::create(dir, tokens, wake, flush_delay, load.depth())?))
}

fn alone(store: Result<impl Store + 'static>) -> Result<Box<dyn Contender>> {
    Ok(Box::new(Alone(store?)))
}

fn grouped(setup: &Setup<'_>, store: Result<impl Store + 'static>) -> Result<Box<dyn Contender>> {
    Ok(Box::new(Grouped::new(store?, setup.load.depth())?))
}

pub fn rows() -> Vec<Row> {
    let mut rows = limits();
    rows.push(pipelining("cloakroom", "**cloakroom**", |setup| {
        let depth = setup.load.depth();
        Ok(Box::new(Room::create(setup.dir, setup.tokens, depth, setup.flush_delay)?))
    }));
    rows.extend(as_used());
    rows.extend(behind_a_thread());
    rows
}

/// What nothing on this disk can surpass.
fn limits() -> Vec<Row> {
    vec![
        Row {
            name: "raw-fdatasync",
            title: "raw 4 KiB overwrite + `fdatasync`",
            kind: Kind::Raw(Flush::Fdatasync),
        },
        Row {
            name: "raw-dsync",
            title: "raw 4 KiB overwrite, `RWF_DSYNC`",
            kind: Kind::Raw(Flush::Dsync),
        },
        pipelining("bare-condvar", "bare loop: condition variable", |setup| {
            bare(setup, Wake::Condvar)
        }),
        pipelining("bare-futex", "bare loop: one wake-up per group", |setup| {
            bare(setup, Wake::Futex)
        }),
        pipelining("bare-delay", "bare loop: the same, delaying", |setup| {
            bare(setup, Wake::FutexDelaying)
        }),
    ]
}

/// The engines as their users run them.
fn as_used() -> Vec<Row> {
    vec![
        waiting("sqlite-shared", "SQLite, one connection behind a mutex", |s| {
            alone(Sqlite::create(s.dir, s.tokens, false))
        }),
        waiting("sqlite-each", "SQLite, a connection per thread", |s| {
            alone(Sqlite::create(s.dir, s.tokens, true))
        }),
        #[cfg(feature = "rocksdb")]
        waiting("rocksdb-locks", "RocksDB, a lock per key", |s| {
            alone(Rocks::create(s.dir, s.tokens, false))
        }),
        #[cfg(feature = "rocksdb")]
        waiting("rocksdb-optimistic", "RocksDB, optimistic transactions", |s| {
            alone(Rocks::create(s.dir, s.tokens, true))
        }),
        waiting("redb", "redb", |s| alone(Redb::create(s.dir, s.tokens))),
        waiting("fjall", "fjall", |s| alone(Fjall::create(s.dir, s.tokens))),
        waiting("lmdb", "LMDB", |s| alone(Lmdb::create(s.dir, s.tokens))),
        waiting("canopydb", "canopydb", |s| alone(Canopy::create(s.dir, s.tokens))),
        waiting("redis", "Redis over loopback", |s| alone(Redis::create(s.dir, s.tokens))),
    ]
}

/// The same behind a hand-written group commit.
fn behind_a_thread() -> Vec<Row> {
    vec![
        pipelining("group-sqlite", "SQLite behind a group-commit thread", |s| {
            grouped(s, Sqlite::create(s.dir, s.tokens, false))
        }),
        #[cfg(feature = "rocksdb")]
        pipelining("group-rocksdb", "RocksDB behind a group-commit thread", |s| {
            grouped(s, Rocks::create(s.dir, s.tokens, false))
        }),
        pipelining("group-redb", "redb behind a group-commit thread", |s| {
            grouped(s, Redb::create(s.dir, s.tokens))
        }),
        pipelining("group-fjall", "fjall behind a group-commit thread", |s| {
            grouped(s, Fjall::create(s.dir, s.tokens))
        }),
        pipelining("group-lmdb", "LMDB behind a group-commit thread", |s| {
            grouped(s, Lmdb::create(s.dir, s.tokens))
        }),
        pipelining("group-canopydb", "canopydb behind a group-commit thread", |s| {
            grouped(s, Canopy::create(s.dir, s.tokens))
        }),
        pipelining("group-redis", "Redis behind a group-commit thread", |s| {
            grouped(s, Redis::create(s.dir, s.tokens))
        }),
    ]
}
