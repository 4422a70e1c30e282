//! The elapsed time of the system: what no setting of the wall clock moves, and in which sleep
//! counts.
//!
//! | system | source | counted from |
//! |---|---|---|
//! | Linux, Android | `CLOCK_BOOTTIME` | the start of the system |
//! | macOS, iOS | `CLOCK_MONOTONIC`, in which sleep counts there | the start of the system |
//! | Windows | [`Instant`](std::time::Instant): the performance counter, in which sleep counts | the first reading in this process |
//! | others | `Instant` | the first reading in this process |
//!
//! That the performance counter counts sleep, standby and hibernation is said by Microsoft
//! ("Acquiring high-resolution time stamps": "including the time when the machine was in a sleep
//! state"), and that `Instant` is that counter by the standard library ("Underlying System calls")
//! and its issue 79462, which tells of the difference to Linux. Should `Instant` ever stand still
//! there (the library's team has agreed to a choice of clocks, proposal 733), it would take
//! `GetTickCount64` or `QueryInterruptTime`, in which sleep counts as well and which are counted
//! from the start of the system, and with them a dependency such as `windows-sys`.

pub(super) use source::{IS_SINCE_BOOT, elapsed_ms};

#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
mod source {
    use rustix::time::{ClockId, clock_gettime};

    #[cfg(any(target_os = "linux", target_os = "android"))]
    const SINCE_BOOT: ClockId = ClockId::Boottime;
    #[cfg(target_vendor = "apple")]
    const SINCE_BOOT: ClockId = ClockId::Monotonic;

    pub(crate) const IS_SINCE_BOOT: bool = true;

    pub(crate) fn elapsed_ms() -> u64 {
        let since_boot = clock_gettime(SINCE_BOOT);
        let seconds = u64::try_from(since_boot.tv_sec).unwrap_or_default();
        let ms = u64::try_from(since_boot.tv_nsec).unwrap_or_default() / 1_000_000;
        seconds.saturating_mul(1_000).saturating_add(ms)
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
mod source {
    use std::sync::LazyLock;
    use std::time::Instant;

    static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);

    pub(crate) const IS_SINCE_BOOT: bool = false;

    pub(crate) fn elapsed_ms() -> u64 {
        u64::try_from(FIRST.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
