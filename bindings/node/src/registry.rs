//! The rooms that are open in this process, by device and inode.
//!
//! The library is loaded once in a process, however many worker threads load it, so this is where
//! they meet: several opens of one file share one room, and the last close closes it.
//!
//! Order of locks: `OPENING`, then `ROOMS` (for a moment), then one room's slot. A close holds its
//! room's slot alone while it waits for the disk, so it delays nobody but an open of the same file.

use crate::failure::Failure;
use cloakroom::{Builder, Cloakroom, Error, ManualClock};
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

/// Device, inode, and whether it is open for reading only.
type Key = (u64, u64, bool);

/// One room and how many opens share it. `None` when it was closed.
type Slot = Arc<Mutex<Option<(Shared, usize)>>>;

static OPENING: Mutex<()> = Mutex::new(());
static ROOMS: LazyLock<Mutex<HashMap<Key, Slot>>> = LazyLock::new(Mutex::default);

#[derive(Clone)]
struct Shared {
    room: Cloakroom,
    clock: Option<Arc<ManualClock>>,
}

/// One open of a room.
pub struct OpenRoom {
    shared: Shared,
    /// `None` for a room in memory, which nobody else can open.
    place: Option<(Key, Slot)>,
    is_closed: AtomicBool,
}

// What a lock guards here is whole between any two steps, so a panic elsewhere does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key_of(path: &Path, read_only: bool) -> Option<Key> {
    std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino(), read_only))
}

impl OpenRoom {
    /// Opens `path`, or joins those who have it open. `host_now` is the time of a room whose clock
    /// the host moves.
    pub fn open(
        path: &str,
        read_only: bool,
        host_now: Option<u64>,
        builder: Builder,
    ) -> Result<Self, Failure> {
        let clock = host_now.map(|now| Arc::new(ManualClock::new(now)));
        let builder = match &clock {
            Some(clock) => builder.clock(Arc::<ManualClock>::clone(clock)),
            None => builder,
        }
        .read_only(read_only);
        if path == ":memory:" {
            let shared = Shared { room: builder.open_in_memory()?, clock };
            return Ok(Self { shared, place: None, is_closed: AtomicBool::new(false) });
        }
        let _opening = lock(&OPENING);
        let path = Path::new(path);
        if let Some(joined) = key_of(path, read_only).and_then(Self::join) {
            return Ok(joined);
        }
        let shared = Shared { room: builder.open(path)?, clock };
        let Some(key) = key_of(path, read_only) else {
            let path = path.to_owned();
            return Err(Error::Unlinked { path }.into());
        };
        let slot: Slot = Arc::new(Mutex::new(Some((shared.clone(), 1))));
        lock(&ROOMS).insert(key, Arc::clone(&slot));
        Ok(Self { shared, place: Some((key, slot)), is_closed: AtomicBool::new(false) })
    }

    fn join(key: Key) -> Option<Self> {
        let slot = Arc::clone(lock(&ROOMS).get(&key)?);
        let shared = {
            let mut held = lock(&slot);
            let (shared, opens) = held.as_mut()?;
            *opens += 1;
            shared.clone()
        };
        Some(Self { shared, place: Some((key, slot)), is_closed: AtomicBool::new(false) })
    }

    /// The room, unless this open of it was closed.
    pub fn room(&self) -> Result<&Cloakroom, Failure> {
        if self.is_closed() { Err(Error::Closed.into()) } else { Ok(&self.shared.room) }
    }

    pub fn clock(&self) -> Option<&ManualClock> {
        self.shared.clock.as_deref()
    }

    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Refuses the calls from now on. The rest of the closing is [`finish`](Self::finish).
    pub fn mark_closed(&self) -> bool {
        !self.is_closed.swap(true, Ordering::AcqRel)
    }

    /// Closes the room if this was the last open of it; waits for the disk. Called once, by the
    /// caller whose `mark_closed` answered `true`.
    pub fn finish(&self) -> Result<(), Error> {
        let Some((key, slot)) = &self.place else { return self.shared.room.close() };
        let mut held = lock(slot);
        let Some((_, opens)) = held.as_mut() else { return Ok(()) };
        *opens -= 1;
        if *opens > 0 {
            drop(held);
            // The others go on. What was called before the close is durable after it.
            let is_read_only = key.2;
            return if is_read_only { Ok(()) } else { self.shared.room.checkpoint() };
        }
        let closed = self.shared.room.close();
        *held = None;
        let mut rooms = lock(&ROOMS);
        if rooms.get(key).is_some_and(|current| Arc::ptr_eq(current, slot)) {
            rooms.remove(key);
        }
        closed
    }
}

impl Drop for OpenRoom {
    fn drop(&mut self) {
        if self.mark_closed() {
            // There is nobody to tell; what failed shows in the next opening.
            let _ = self.finish();
        }
    }
}
