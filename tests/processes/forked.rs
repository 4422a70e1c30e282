//! Forking, for the tests of what a room does in a forked child.

use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

/// By when every child has ended. One that has not hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a child is made.
#[derive(Debug, Clone, Copy)]
pub enum How {
    /// As the C library does it.
    Fork,
    /// By the system call alone, of which the C library is not told.
    RawClone,
}

/// A child that was forked. It must be waited for.
#[must_use]
pub struct Child(libc::pid_t);

/// Forks, and runs `work` in the child, which then ends as a program does. In the parent the child.
pub fn fork(how: How, work: impl FnOnce()) -> Child {
    let made = match how {
        // SAFETY: the child runs what a single-threaded program may run; that this works although
        // the parent has other threads is what is tested.
        How::Fork => i64::from(unsafe { libc::fork() }),
        // SAFETY: as above. Without a stack of its own the child goes on with a copy of this one.
        How::RawClone => unsafe {
            libc::syscall(libc::SYS_clone, libc::c_long::from(libc::SIGCHLD), 0, 0, 0, 0)
        },
    };
    match made {
        0 => {
            let outcome = catch_unwind(AssertUnwindSafe(work));
            // What is dropped at the end of a program is dropped, but libtest does not go on here.
            std::process::exit(if outcome.is_ok() { 0 } else { 101 });
        }
        pid if pid > 0 => Child(libc::pid_t::try_from(pid).unwrap()),
        _ => panic!("no child: {}", std::io::Error::last_os_error()),
    }
}

impl Child {
    /// Waits until it has ended well.
    pub fn ends_well(self) {
        let began = Instant::now();
        let mut status = 0;
        loop {
            // SAFETY: the status lives across the call.
            let ended = unsafe { libc::waitpid(self.0, &raw mut status, libc::WNOHANG) };
            if ended == self.0 {
                let status = ExitStatus::from_raw(status);
                assert!(status.success(), "the child failed: {status}");
                return;
            }
            assert_eq!(ended, 0, "{}", std::io::Error::last_os_error());
            if began.elapsed() > PATIENCE {
                // SAFETY: it is this process's child, and was not waited for yet.
                unsafe { libc::kill(self.0, libc::SIGKILL) };
                panic!("the child hangs");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Forks as the C library does, and waits until the child has ended well.
pub fn in_a_child(work: impl FnOnce()) {
    fork(How::Fork, work).ends_well();
}

/// Runs the test of this name again in a process of its own, where no other test has threads.
/// Answers whether this is that process, which shall do the work.
pub fn alone(name: &str) -> bool {
    const ALONE: &str = "CLOAKROOM_FORK_TEST";
    if std::env::var(ALONE).is_ok_and(|asked| asked == name) {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(ALONE, name)
        .output()
        .unwrap();
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert!(stdout.contains("1 passed"), "{stdout}");
    false
}
