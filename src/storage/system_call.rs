//! The seam at the system calls on a file: tests decide here what the system answers.
//!
//! Every call on an open room goes by [`admit`], which in a production build does nothing. What
//! each call may answer, and what is done then, is in docs/protocol.md, "System calls that answer
//! otherwise".

#[cfg(any(test, feature = "testing"))]
pub use injection::{Injected, Injection, inject};

use std::io;

/// A system call that a room makes on its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemCall {
    /// The file is opened a second time, by its descriptor.
    Reopen,
    /// Bytes are read.
    Pread,
    /// Bytes are written.
    Pwrite,
    /// Bytes are written and made durable.
    Pwritev2,
    /// The content of a file is flushed.
    Fdatasync,
    /// The content and all attributes of a file are flushed.
    Fsync,
    /// The names in a directory are flushed.
    FsyncDirectory,
    /// Space is reserved.
    Fallocate,
    /// Space is given back.
    PunchHole,
    /// The length of the file is set.
    Ftruncate,
    /// The file is mapped into memory.
    Mmap,
    /// The file system is asked where the file has holes.
    Lseek,
    /// A new file gets its name, unless the name is taken.
    Renameat2,
}

/// Asks the seam how many of the `len` bytes of a call may be given to the system.
///
/// # Errors
/// What the system is to answer instead of being called.
#[cfg(any(test, feature = "testing"))]
pub(super) fn admit(call: SystemCall, len: usize) -> io::Result<usize> {
    injection::answer(call, len)
}

/// Asks the seam how many of the `len` bytes of a call may be given to the system: all of them.
#[cfg(not(any(test, feature = "testing")))]
#[inline]
#[expect(clippy::unnecessary_wraps, reason = "tests have it fail")]
pub(super) fn admit(_call: SystemCall, len: usize) -> io::Result<usize> {
    Ok(len)
}

/// What the system is to answer to the calls of this thread. A room without background threads
/// makes all its calls on the threads of its callers.
#[cfg(any(test, feature = "testing"))]
mod injection {
    use super::SystemCall;
    use std::cell::RefCell;
    use std::io;

    /// What a call is to answer.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Injected {
        /// This error number. The system is not called.
        Errno(i32),
        /// At most this many bytes are given to the system, as by a short write.
        Short(usize),
    }

    /// Answers for the calls of one kind on this thread. They end when this is dropped.
    #[derive(Debug)]
    pub struct Injection {
        number: u64,
    }

    struct PlannedAnswer {
        number: u64,
        call: SystemCall,
        calls_before: u64,
        times: u64,
        answer: Injected,
        met: u64,
    }

    #[derive(Default)]
    struct InjectionPlan {
        planned: Vec<PlannedAnswer>,
        next_number: u64,
    }

    thread_local! {
        static PLAN: RefCell<InjectionPlan> = RefCell::default();
    }

    /// Makes `times` calls of that kind on this thread answer so, after `calls_before` others.
    #[must_use = "the answers end when this is dropped"]
    pub fn inject(call: SystemCall, calls_before: u64, times: u64, answer: Injected) -> Injection {
        PLAN.with_borrow_mut(|plan| {
            let number = plan.next_number;
            plan.next_number += 1;
            plan.planned.push(PlannedAnswer { number, call, calls_before, times, answer, met: 0 });
            Injection { number }
        })
    }

    impl Injection {
        /// How many calls have answered so.
        #[must_use]
        pub fn met(&self) -> u64 {
            PLAN.with_borrow(|plan| {
                plan.planned
                    .iter()
                    .find(|planned| planned.number == self.number)
                    .map_or(0, |planned| planned.met)
            })
        }
    }

    impl Drop for Injection {
        fn drop(&mut self) {
            PLAN.with_borrow_mut(|plan| {
                plan.planned.retain(|planned| planned.number != self.number);
            });
        }
    }

    pub(super) fn answer(call: SystemCall, len: usize) -> io::Result<usize> {
        let answer = PLAN.with_borrow_mut(|plan| {
            let mut answer = None;
            for planned in plan.planned.iter_mut().filter(|planned| planned.call == call) {
                if planned.calls_before > 0 {
                    planned.calls_before -= 1;
                } else if planned.times > 0 && answer.is_none() {
                    planned.times -= 1;
                    planned.met += 1;
                    answer = Some(planned.answer);
                }
            }
            answer
        });
        match answer {
            None => Ok(len),
            Some(Injected::Short(bytes)) => Ok(bytes.min(len)),
            Some(Injected::Errno(number)) => Err(io::Error::from_raw_os_error(number)),
        }
    }
}
