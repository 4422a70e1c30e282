//! The locks, atomics and threads of a model checker, with the interfaces of those that they stand
//! for.

#[cfg(cloakroom_model = "loom")]
use loom as checker;
#[cfg(cloakroom_model = "shuttle")]
use shuttle as checker;

pub(crate) use checker::sync::atomic;
use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;
use std::time::Duration;

#[cfg(cloakroom_model = "shuttle")]
pub(crate) use shuttle::thread_local;

/// Loom's macro does not know constant initial values.
#[cfg(cloakroom_model = "loom")]
macro_rules! of_loom {
    ($(#[$doc:meta])* static $name:ident: $type:ty = const { $initial:expr };) => {
        loom::thread_local! { $(#[$doc])* static $name: $type = $initial }
    };
}
#[cfg(cloakroom_model = "loom")]
pub(crate) use of_loom as thread_local;

/// What both checkers have of threads.
pub(crate) mod thread {
    use crate::sync::modelled::checker::thread as checked;
    pub(crate) use ModelledBuilder as Builder;
    pub(crate) use ModelledHandle as JoinHandle;
    pub(crate) use ModelledThread as Thread;
    pub(crate) use checked::{ThreadId, yield_now};
    use std::cell::OnceCell;
    use std::sync::Arc;

    /// A thread, and whether it was unparked. Loom's own forgets an `unpark` of a thread that waits
    /// for a lock at that moment.
    #[derive(Debug, Clone)]
    pub(crate) struct ModelledThread {
        id: checked::ThreadId,
        parking: Arc<Parking>,
    }

    #[derive(Debug)]
    struct Parking {
        is_unparked: crate::sync::modelled::Mutex<bool>,
        unparked: crate::sync::modelled::Condvar,
    }

    impl ModelledThread {
        pub(crate) fn id(&self) -> checked::ThreadId {
            self.id
        }

        pub(crate) fn unpark(&self) {
            *self.parking.is_unparked.lock() = true;
            self.parking.unparked.notify_one();
        }
    }

    pub(crate) fn current() -> Thread {
        crate::sync::modelled::thread_local! {
            static PARKING: OnceCell<Arc<Parking>> = const { OnceCell::new() };
        }
        let new = || {
            let (is_unparked, unparked) =
                (crate::sync::modelled::Mutex::new(false), crate::sync::modelled::Condvar::new());
            Arc::new(Parking { is_unparked, unparked })
        };
        let parking = PARKING.with(|parking| Arc::clone(parking.get_or_init(new)));
        ModelledThread { id: checked::current().id(), parking }
    }

    pub(crate) fn park() {
        let parking = current().parking;
        let mut is_unparked = parking.is_unparked.lock();
        while !std::mem::take(&mut *is_unparked) {
            parking.unparked.wait(&mut is_unparked);
        }
    }

    /// A sleep is as long as it must be: until others have gone on.
    pub(crate) fn sleep(_: std::time::Duration) {
        yield_now();
    }

    pub(crate) fn spawn<T: Send + 'static>(
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        ModelledHandle(checked::spawn(work))
    }

    pub(crate) struct ModelledHandle<T>(checked::JoinHandle<T>);

    impl<T> ModelledHandle<T> {
        /// No caller may rely on it.
        pub(crate) fn is_finished(&self) -> bool {
            false
        }

        pub(crate) fn thread(&self) -> &checked::Thread {
            self.0.thread()
        }

        pub(crate) fn join(self) -> std::thread::Result<T> {
            self.0.join()
        }
    }

    impl<T> std::fmt::Debug for ModelledHandle<T> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("ModelledHandle")
        }
    }

    pub(crate) struct ModelledBuilder(checked::Builder);

    impl ModelledBuilder {
        pub(crate) fn new() -> Self {
            Self(checked::Builder::new())
        }

        pub(crate) fn name(self, name: String) -> Self {
            Self(self.0.name(name))
        }

        pub(crate) fn spawn(
            self,
            work: impl FnOnce() + Send + 'static,
        ) -> std::io::Result<JoinHandle<()>> {
            self.0.spawn(work).map(ModelledHandle)
        }
    }
}

/// A lock that does not poison.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(checker::sync::Mutex<T>);

/// See [`Mutex`]. Empty only while a condition is waited for.
#[derive(Debug)]
pub(crate) struct MutexGuard<'a, T> {
    held: Option<checker::sync::MutexGuard<'a, T>>,
    of: &'a Mutex<T>,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(checker::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        MutexGuard { held: Some(held), of: self }
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let held = self.0.try_lock().ok()?;
        Some(MutexGuard { held: Some(held), of: self })
    }
}

impl<T> MutexGuard<'_, T> {
    pub(crate) fn unlock_fair(guard: Self) {
        drop(guard);
        thread::yield_now();
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.held.as_ref().expect("held while nothing is waited for")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_mut().expect("held while nothing is waited for")
    }
}

/// A condition of a [`Mutex`].
#[derive(Debug, Default)]
pub(crate) struct Condvar(checker::sync::Condvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self(checker::sync::Condvar::new())
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let held = guard.held.take().expect("one wait at a time");
        guard.held = Some(self.0.wait(held).unwrap_or_else(PoisonError::into_inner));
    }

    /// The time is over as soon as the others had their chance.
    pub(crate) fn wait_until<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        until: impl PointInTime,
    ) -> TimedWait {
        guard.held = None;
        thread::yield_now();
        guard.held = guard.of.lock().held.take();
        until.has_come();
        TimedWait
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// See [`Condvar::wait_until`].
pub(crate) struct TimedWait;

impl TimedWait {
    pub(crate) fn timed_out(&self) -> bool {
        true
    }
}

/// A lock for many readers or one writer.
#[derive(Debug)]
pub(crate) struct RwLock<T>(checker::sync::RwLock<T>);

pub(crate) use checker::sync::{RwLockReadGuard, RwLockWriteGuard};

impl<T> RwLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(checker::sync::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a wait may end at.
pub(crate) trait PointInTime {
    fn has_come(&self) {}
}

impl PointInTime for std::time::Instant {}

/// A point in time of the model, in which time passes only while somebody waits for it. So a model
/// does not depend on how fast it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(Duration);

// A model runs in one thread of the system, and one after the other.
std::thread_local! {
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

impl Instant {
    pub(crate) fn now() -> Self {
        Self(NOW.get())
    }

    pub(crate) fn elapsed(self) -> Duration {
        Self::now().0 - self.0
    }

    pub(crate) fn checked_add(self, time: Duration) -> Option<Self> {
        self.0.checked_add(time).map(Self)
    }
}

impl PointInTime for Instant {
    fn has_come(&self) {
        NOW.set(NOW.get().max(self.0));
    }
}

/// Lets others go on once. Who loops until a time waits for it: without that, no time might pass
/// any more.
pub(crate) fn yield_within(began: Instant, time: Duration) {
    thread::yield_now();
    if let Some(end) = began.checked_add(time) {
        end.has_come();
    }
}

/// A futex: a wait is for a value, and a wake-up reaches who sleeps at that moment.
#[derive(Debug)]
pub(crate) struct ModelledWord {
    value: atomic::AtomicU32,
    sleepers: Mutex<()>,
    woken: Condvar,
}

impl Default for ModelledWord {
    fn default() -> Self {
        Self { value: atomic::AtomicU32::new(0), sleepers: Mutex::new(()), woken: Condvar::new() }
    }
}

impl ModelledWord {
    pub(crate) fn value(&self) -> u32 {
        self.value.load(atomic::Ordering::Acquire)
    }

    pub(crate) fn change(&self) {
        self.value.fetch_add(1, atomic::Ordering::Release);
    }

    pub(crate) fn sleep_while(&self, before: u32) {
        while self.value() == before {
            // The system compares and begins to sleep in one step.
            let mut sleepers = self.sleepers.lock();
            if self.value() == before {
                self.woken.wait(&mut sleepers);
            }
        }
    }

    pub(crate) fn wake_all(&self) {
        drop(self.sleepers.lock());
        self.woken.notify_all();
    }
}
