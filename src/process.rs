//! Which process this is: a forked child is another one, although its memory says otherwise.
//!
//! A child that is forked while a room is open has a copy of the room's memory and the parent's
//! descriptors, but none of its threads, and its locks may be held by threads that are gone. So it
//! must notice that it is a child before it takes any lock, and leave the file alone.
//!
//! # How a fork is noticed
//! A page of memory holds a number that is not zero. The system gives a child that page filled with
//! zeros (`MADV_WIPEONFORK`), whichever call forked it. That costs a caller one load from memory;
//! asking for the number of the process would be a system call. Where there is no such page, the
//! number of the process is compared.

use crate::error::{Error, ForkedProcess, Result};
use std::fmt;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The process in which this value was made.
#[derive(Clone, Copy)]
pub(crate) struct HomeProcess {
    /// The number of the present process, on a page that a child finds wiped.
    wiped: Option<&'static AtomicU64>,
    /// The number when this was made.
    number: u64,
}

impl HomeProcess {
    /// The present process.
    pub(crate) fn current() -> Self {
        static PAGE: OnceLock<Option<&'static AtomicU64>> = OnceLock::new();
        let wiped = *PAGE.get_or_init(wiped_on_fork);
        let number = wiped.map_or_else(process_id, number_on);
        Self { wiped, number }
    }

    /// Whether this is another process by now: a fork of the one in which this was made.
    pub(crate) fn has_forked(&self) -> bool {
        let present = match self.wiped {
            Some(number) => number.load(Ordering::Relaxed),
            None => process_id(),
        };
        present != self.number
    }

    /// # Errors
    /// [`Error::Forked`] in a fork of the process in which this was made.
    pub(crate) fn check(&self) -> Result<()> {
        if self.has_forked() { Err(Error::Forked) } else { Ok(()) }
    }

    /// The same for a call of the system.
    ///
    /// # Errors
    /// [`ForkedProcess`], which [`Error::io`] makes an [`Error::Forked`].
    pub(crate) fn check_call(&self) -> io::Result<()> {
        if self.has_forked() { Err(io::Error::other(ForkedProcess)) } else { Ok(()) }
    }
}

impl fmt::Debug for HomeProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HomeProcess").field("has_forked", &self.has_forked()).finish()
    }
}

fn process_id() -> u64 {
    u64::from(std::process::id())
}

/// The number on the page. A child that finds zero there gives itself a number of its own.
fn number_on(page: &AtomicU64) -> u64 {
    /// The last number given. A child goes on counting where the parent was.
    static LAST: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = page.load(Ordering::Relaxed);
        if number != 0 {
            return number;
        }
        let next = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        // Another thread may have been first.
        let _ = page.compare_exchange(0, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// A number that a child finds zero, if the system can do that. It lives for ever.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "only the system can wipe a page at a fork")]
fn wiped_on_fork() -> Option<&'static AtomicU64> {
    use rustix::mm::{Advice, madvise};
    let map = Box::leak(Box::new(memmap2::MmapMut::map_anon(size_of::<AtomicU64>()).ok()?));
    let start = map.as_mut_ptr();
    // SAFETY: the range is a private anonymous map of our own, in which nothing lies but the number
    // below; the advice changes nothing in this process.
    unsafe { madvise(start.cast(), map.len(), Advice::LinuxWipeOnFork) }.ok()?;
    // SAFETY: the map is zeroed, writable, begins at a page and has the size of the number. It is
    // never unmapped, and nothing else refers to its bytes. The system wipes the child's copy while
    // the child has no thread that could read it.
    Some(unsafe { AtomicU64::from_ptr(start.cast()) })
}

/// A number that a child finds zero, which this system cannot do.
#[cfg(not(target_os = "linux"))]
fn wiped_on_fork() -> Option<&'static AtomicU64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_its_own_process_nothing_has_forked() {
        let home = HomeProcess::current();
        assert!(!home.has_forked());
        home.check().unwrap();
        home.check_call().unwrap();
        assert_eq!(home.number, HomeProcess::current().number);
    }

    #[test]
    fn another_number_is_another_process_with_and_without_the_page() {
        let home = HomeProcess::current();
        let elsewhere = HomeProcess { number: home.number + 1, ..home };
        assert!(matches!(elsewhere.check(), Err(Error::Forked)));
        let refused = elsewhere.check_call().unwrap_err();
        assert!(matches!(Error::io("reading", refused), Error::Forked));
        let by_id = HomeProcess { wiped: None, number: process_id() };
        assert!(!by_id.has_forked());
        assert!(HomeProcess { number: process_id() + 1, ..by_id }.has_forked());
    }

    #[test]
    fn a_wiped_page_gets_the_next_number() {
        let page = AtomicU64::new(0);
        let first = number_on(&page);
        assert_eq!(number_on(&page), first);
        page.store(0, Ordering::Relaxed);
        assert!(number_on(&page) > first);
    }
}
