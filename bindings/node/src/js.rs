//! The one file with unsafe code: values, promises and the way back to the thread of JavaScript.
//!
//! A call is issued on the thread of JavaScript and its `Pending` polled once. What is ready is
//! settled in place. The rest goes into a slab; its wakers, on any thread, push an index on a list,
//! and the first push of a group makes one thread-safe call. That call drains the list on the
//! thread of JavaScript and settles every promise whose answer is there.
//!
//! 1. A [`Settler`] belongs to one environment and is touched on its thread only. It is kept alive
//!    by the context of the thread-safe function until Node finalizes that.
//! 2. Other threads hold a [`Bell`] only. It forgets the thread-safe function under its lock before
//!    the environment is torn down, so a waker that comes later rings nothing.
//! 3. No cell is borrowed while JavaScript may run.

use crate::failure::Failure;
use crate::out::Out;
use crate::room::NativeRoom;
use cloakroom::{Pending, Transaction};
use napi::bindgen_prelude::ToNapiValue;
use napi::sys;
use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::future::Future;
use std::pin::Pin;
use std::ptr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// A JavaScript value that is returned from a call as it is.
pub struct Js(sys::napi_value);

impl ToNapiValue for Js {
    // SAFETY: the value was made in the scope of the call that returns it.
    unsafe fn to_napi_value(_: sys::napi_env, value: Self) -> napi::Result<sys::napi_value> {
        Ok(value.0)
    }
}

/// A thread-safe function, which may be called from any thread while it lives.
struct ThreadSafe(sys::napi_threadsafe_function);

// SAFETY: Node-API allows `napi_call_threadsafe_function` from any thread. The bell's lock keeps
// the calls apart from the teardown.
unsafe impl Send for ThreadSafe {}

/// How other threads call the thread of JavaScript.
struct Bell {
    /// `None` before it is made and after the environment began to end.
    function: Mutex<Option<ThreadSafe>>,
    woken: Mutex<Vec<usize>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bell {
    fn wake(&self, index: usize) {
        let is_first = {
            let mut woken = lock(&self.woken);
            woken.push(index);
            woken.len() == 1
        };
        if is_first && let Some(function) = &*lock(&self.function) {
            // SAFETY: the function lives, as `teardown` takes it out under this lock before Node
            // frees it. Non-blocking, and its queue has no bound, so this does not wait.
            unsafe {
                sys::napi_call_threadsafe_function(
                    function.0,
                    ptr::null_mut(),
                    sys::ThreadsafeFunctionCallMode::nonblocking,
                );
            }
        }
    }
}

/// Wakes the task in one place of the slab. One that wakes too late makes a needless poll there.
struct SlotWaker {
    bell: Arc<Bell>,
    index: usize,
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.bell.wake(self.index);
    }
}

type Answer = Result<Out, Failure>;
type Task = Pin<Box<dyn Future<Output = Answer>>>;

struct Slot {
    waker: Waker,
    /// `None` while it is free or being polled.
    waiting: Option<(sys::napi_deferred, Task)>,
}

#[derive(Default)]
struct Slab {
    slots: Vec<Slot>,
    free: Vec<usize>,
}

/// Makes and settles the promises of one environment.
pub struct Settler {
    env: sys::napi_env,
    bell: Arc<Bell>,
    slab: RefCell<Slab>,
    /// Promises that wait. While there are any, the process stays alive.
    waiting: Cell<usize>,
    make_error: sys::napi_ref,
    parse: sys::napi_ref,
    now: sys::napi_ref,
    /// The transaction whose closure runs on this thread now.
    transaction: Cell<*mut c_void>,
    function: Cell<sys::napi_threadsafe_function>,
}

/// The answer of a `Pending` as a value for JavaScript.
struct Answering<T, E> {
    pending: Pending<T, E>,
    convert: fn(T) -> Out,
}

impl<T, E: Into<Failure>> Future for Answering<T, E> {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let convert = self.convert;
        Pin::new(&mut self.pending).poll(context).map(|done| match done {
            Ok(value) => Ok(convert(value)),
            Err(error) => Err(error.into()),
        })
    }
}

impl Settler {
    /// The settler of the environment of the caller. The functions are `makeError(code, message,
    /// data)`, `JSON.parse` and `Date.now`.
    pub fn new(
        env: &napi::Env,
        make_error: &napi::Unknown<'_>,
        parse: &napi::Unknown<'_>,
        now: &napi::Unknown<'_>,
    ) -> napi::Result<Rc<Self>> {
        let env = env.raw();
        let bell = Arc::new(Bell { function: Mutex::new(None), woken: Mutex::default() });
        let settler = Rc::new(Self {
            env,
            bell,
            slab: RefCell::default(),
            waiting: Cell::new(0),
            make_error: reference(env, make_error)?,
            parse: reference(env, parse)?,
            now: reference(env, now)?,
            transaction: Cell::new(ptr::null_mut()),
            function: Cell::new(ptr::null_mut()),
        });
        let context = Rc::into_raw(Rc::clone(&settler)).cast_mut().cast::<c_void>();
        let mut function = ptr::null_mut();
        // SAFETY: on the thread of `env`. `context` is a counted reference that `finalize` gives
        // back, and Node calls neither callback after that. The hook is added after the function,
        // whose own hook Node added with it, and hooks run last to first: so `teardown` runs while
        // both the function and the settler still live.
        unsafe {
            let mut name = ptr::null_mut();
            check(sys::napi_create_string_utf8(env, c"cloakroom".as_ptr(), 9, &raw mut name))?;
            check(sys::napi_create_threadsafe_function(
                env,
                ptr::null_mut(),
                ptr::null_mut(),
                name,
                0,
                1,
                context,
                Some(finalize),
                context,
                Some(drain),
                &raw mut function,
            ))?;
            check(sys::napi_unref_threadsafe_function(env, function))?;
            check(sys::napi_add_env_cleanup_hook(env, Some(teardown), context))?;
        }
        settler.function.set(function);
        *lock(&settler.bell.function) = Some(ThreadSafe(function));
        Ok(settler)
    }

    /// A promise of what `pending` answers.
    pub fn promise<T, E>(&self, pending: Pending<T, E>) -> Js
    where
        T: Into<Out> + 'static,
        E: Into<Failure> + 'static,
    {
        self.promise_with(pending, Into::into)
    }

    /// A promise of what `convert` makes of what `pending` answers.
    pub fn promise_with<T, E>(&self, pending: Pending<T, E>, convert: fn(T) -> Out) -> Js
    where
        T: 'static,
        E: Into<Failure> + 'static,
    {
        self.promise_of(Answering { pending, convert })
    }

    /// A promise of what `task` gives.
    pub fn promise_of(&self, mut task: impl Future<Output = Answer> + Unpin + 'static) -> Js {
        let (index, waker) = self.reserve();
        let first = Pin::new(&mut task).poll(&mut Context::from_waker(&waker));
        let (mut deferred, mut promise) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: on the thread of `env`, within the scope of a call from JavaScript.
        unsafe { sys::napi_create_promise(self.env, &raw mut deferred, &raw mut promise) };
        match first {
            Poll::Ready(answer) => {
                self.release(index);
                self.settle(deferred, answer);
            }
            Poll::Pending => {
                if let Some(slot) = self.slab.borrow_mut().slots.get_mut(index) {
                    slot.waiting = Some((deferred, Box::pin(task)));
                }
                self.waiting.set(self.waiting.get() + 1);
                if self.waiting.get() == 1 {
                    // SAFETY: on the thread of `env`; the function lives as long as it does.
                    unsafe { sys::napi_ref_threadsafe_function(self.env, self.function.get()) };
                }
            }
        }
        Js(promise)
    }

    /// The answer itself, or an exception.
    pub fn answer<T: Into<Out>, E: Into<Failure>>(&self, answer: Result<T, E>) -> Js {
        match answer {
            Ok(value) => Js(self.value(value.into())),
            Err(failure) => {
                let error = self.error(failure.into());
                // SAFETY: on the thread of `env`, and what is thrown is a value of this scope. The
                // caller returns at once, without another call into JavaScript.
                unsafe { sys::napi_throw(self.env, error) };
                Js(self.undefined())
            }
        }
    }

    /// The time of the host, from its own `Date.now`, in milliseconds.
    pub fn now(&self) -> u64 {
        let value = self.call(self.now, &[]);
        let mut ms = 0.0_f64;
        // SAFETY: on the thread of `env`; a value that is no number leaves `ms` as it is.
        unsafe { sys::napi_get_value_double(self.env, value, &raw mut ms) };
        crate::arguments::whole(ms).unwrap_or(0)
    }

    /// Whether the closure of a transaction runs on this thread.
    pub fn is_in_transaction(&self) -> bool {
        !self.transaction.get().is_null()
    }

    /// Runs `run` with `tx` as the transaction of this thread.
    pub fn enter<R>(&self, tx: &mut Transaction<'_>, run: impl FnOnce() -> R) -> R {
        struct Restore<'a>(&'a Cell<*mut c_void>, *mut c_void);
        impl Drop for Restore<'_> {
            fn drop(&mut self) {
                self.0.set(self.1);
            }
        }
        let before = self.transaction.replace(ptr::from_mut(tx).cast());
        let _restore = Restore(&self.transaction, before);
        run()
    }

    /// Gives `use_it` the transaction of this thread.
    pub fn within<R>(&self, use_it: impl FnOnce(&mut Transaction<'_>) -> R) -> Result<R, Failure> {
        let tx = self.transaction.replace(ptr::null_mut());
        if tx.is_null() {
            let message = "the transaction has ended; use it inside its function only";
            return Err(Failure::argument(message));
        }
        // SAFETY: `enter` borrows the transaction exclusively while its closure runs and restores
        // the pointer when that ends, so the transaction lives. Taking the pointer out of the cell
        // makes this the one reference to it. `use_it` knows no lifetime to keep it by.
        let answer = use_it(unsafe { &mut *tx.cast::<Transaction<'_>>() });
        self.transaction.set(tx);
        Ok(answer)
    }

    fn reserve(&self) -> (usize, Waker) {
        let mut slab = self.slab.borrow_mut();
        let slab = &mut *slab;
        if let Some(index) = slab.free.pop()
            && let Some(slot) = slab.slots.get(index)
        {
            return (index, slot.waker.clone());
        }
        let index = slab.slots.len();
        let waker = Waker::from(Arc::new(SlotWaker { bell: Arc::clone(&self.bell), index }));
        slab.slots.push(Slot { waker: waker.clone(), waiting: None });
        (index, waker)
    }

    fn release(&self, index: usize) {
        self.slab.borrow_mut().free.push(index);
    }

    /// Polls what is in a place of the slab, and settles it when it is ready.
    fn poll(&self, index: usize) {
        let taken = {
            let mut slab = self.slab.borrow_mut();
            let Some(slot) = slab.slots.get_mut(index) else { return };
            slot.waiting.take().map(|(deferred, task)| (deferred, task, slot.waker.clone()))
        };
        // Free already: this waker came twice, or late.
        let Some((deferred, mut task, waker)) = taken else { return };
        match task.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => {
                if let Some(slot) = self.slab.borrow_mut().slots.get_mut(index) {
                    slot.waiting = Some((deferred, task));
                }
            }
            Poll::Ready(answer) => {
                drop(task);
                self.release(index);
                self.waiting.set(self.waiting.get() - 1);
                if self.waiting.get() == 0 {
                    // SAFETY: on the thread of `env`; the function lives as long as it does.
                    unsafe { sys::napi_unref_threadsafe_function(self.env, self.function.get()) };
                }
                self.settle(deferred, answer);
            }
        }
    }

    fn settle(&self, deferred: sys::napi_deferred, answer: Answer) {
        let mut scope = ptr::null_mut();
        // SAFETY: on the thread of `env`. The deferred is settled here and nowhere else, as it was
        // taken out of the slab, or never in it. The scope is closed where it was opened; it keeps
        // the values of a long list of promises from piling up.
        unsafe {
            sys::napi_open_handle_scope(self.env, &raw mut scope);
            match answer {
                Ok(value) => {
                    let value = self.value(value);
                    sys::napi_resolve_deferred(self.env, deferred, value);
                }
                Err(failure) => {
                    let error = self.error(failure);
                    sys::napi_reject_deferred(self.env, deferred, error);
                }
            }
            sys::napi_close_handle_scope(self.env, scope);
        }
    }

    fn undefined(&self) -> sys::napi_value {
        let mut value = ptr::null_mut();
        // SAFETY: on the thread of `env`.
        unsafe { sys::napi_get_undefined(self.env, &raw mut value) };
        value
    }

    fn text(&self, text: &str) -> sys::napi_value {
        let mut value = ptr::null_mut();
        let length = isize::try_from(text.len()).unwrap_or(isize::MAX);
        // SAFETY: on the thread of `env`; the text is valid for its length and is copied.
        unsafe {
            sys::napi_create_string_utf8(self.env, text.as_ptr().cast(), length, &raw mut value)
        };
        if value.is_null() { self.undefined() } else { value }
    }

    fn error(&self, failure: Failure) -> sys::napi_value {
        let code = self.text(failure.code);
        let message = self.text(&failure.message);
        let data = self.text(&failure.data.to_string());
        self.call(self.make_error, &[code, message, data])
    }

    /// What one of our own functions answers, or `undefined` when it throws.
    fn call(&self, function: sys::napi_ref, arguments: &[sys::napi_value]) -> sys::napi_value {
        let (mut callee, mut value) = (ptr::null_mut(), ptr::null_mut());
        let this = self.undefined();
        // SAFETY: on the thread of `env`; the reference is strong, and the arguments are values of
        // this scope.
        let status = unsafe {
            sys::napi_get_reference_value(self.env, function, &raw mut callee);
            let (count, first) = (arguments.len(), arguments.as_ptr());
            sys::napi_call_function(self.env, this, callee, count, first, &raw mut value)
        };
        if status == sys::Status::napi_ok {
            return value;
        }
        let mut thrown = ptr::null_mut();
        // SAFETY: on the thread of `env`. What was thrown is taken, so that the next call works.
        unsafe { sys::napi_get_and_clear_last_exception(self.env, &raw mut thrown) };
        this
    }

    fn value(&self, out: Out) -> sys::napi_value {
        let env = self.env;
        let mut value = ptr::null_mut();
        // SAFETY: on the thread of `env`, within a scope. Every pointer is to a live local or to
        // memory that is copied, and every value was made in this scope.
        unsafe {
            match out {
                Out::Undefined => sys::napi_get_undefined(env, &raw mut value),
                Out::Null => sys::napi_get_null(env, &raw mut value),
                Out::Bool(is) => sys::napi_get_boolean(env, is, &raw mut value),
                Out::Number(number) => sys::napi_create_double(env, number, &raw mut value),
                Out::Text(text) => return self.text(&text),
                Out::Json(text) => return self.call(self.parse, &[self.text(&text)]),
                Out::Bytes(bytes) => {
                    let (length, from) = (bytes.len(), bytes.as_ptr().cast());
                    sys::napi_create_buffer_copy(env, length, from, ptr::null_mut(), &raw mut value)
                }
                Out::Object(members) => {
                    let mut status = sys::napi_create_object(env, &raw mut value);
                    for (name, member) in members {
                        let (name, member) = (self.text(name), self.value(member));
                        status = sys::napi_set_property(env, value, name, member);
                    }
                    status
                }
                Out::Array(items) => {
                    let status = sys::napi_create_array(env, &raw mut value);
                    for (index, item) in (0_u32..).zip(items) {
                        sys::napi_set_element(env, value, index, self.value(item));
                    }
                    status
                }
                Out::Room(room) => {
                    let room = NativeRoom::new(self.shared(), room);
                    value = NativeRoom::to_napi_value(env, room).unwrap_or(ptr::null_mut());
                    sys::Status::napi_ok
                }
            };
        }
        if value.is_null() { self.undefined() } else { value }
    }

    /// Another counted reference to this settler.
    fn shared(&self) -> Rc<Self> {
        // SAFETY: every settler is made by `new`, in an `Rc`, and `&self` shows that it lives.
        unsafe {
            Rc::increment_strong_count(ptr::from_ref(self));
            Rc::from_raw(ptr::from_ref(self))
        }
    }
}

fn check(status: sys::napi_status) -> napi::Result<()> {
    if status == sys::Status::napi_ok {
        Ok(())
    } else {
        Err(napi::Error::from_reason(format!("Node-API answered {status}")))
    }
}

fn reference(env: sys::napi_env, value: &napi::Unknown<'_>) -> napi::Result<sys::napi_ref> {
    let mut reference = ptr::null_mut();
    // SAFETY: on the thread of `env`, and the value is of the scope of this call.
    check(unsafe {
        sys::napi_create_reference(env, napi::JsValue::raw(value), 1, &raw mut reference)
    })?;
    Ok(reference)
}

/// The thread-safe call: settles what was woken. `env` is null when the environment ends.
unsafe extern "C" fn drain(
    env: sys::napi_env,
    _function: sys::napi_value,
    context: *mut c_void,
    _data: *mut c_void,
) {
    if env.is_null() {
        return;
    }
    // SAFETY: Node calls this on the thread of `env` and not after `finalize`, which gives up the
    // reference that `context` is. The one taken here keeps the settler for the whole call.
    let settler = unsafe { &*context.cast::<Settler>() }.shared();
    let woken = std::mem::take(&mut *lock(&settler.bell.woken));
    for index in woken {
        settler.poll(index);
    }
}

/// The environment begins to end: no thread may ring any more, and nothing will be settled.
unsafe extern "C" fn teardown(context: *mut c_void) {
    // SAFETY: as `drain`. Runs before Node frees the thread-safe function, see `Settler::new`.
    let settler = unsafe { &*context.cast::<Settler>() }.shared();
    *lock(&settler.bell.function) = None;
    // Dropped without a borrow, as dropping a task may wake another one.
    let slab = std::mem::take(&mut *settler.slab.borrow_mut());
    drop(slab);
}

/// Node has freed the thread-safe function: gives back the reference that its context was.
unsafe extern "C" fn finalize(_: sys::napi_env, context: *mut c_void, _: *mut c_void) {
    // SAFETY: `Settler::new` made `context` of an `Rc`, and this is called once.
    drop(unsafe { Rc::from_raw(context.cast::<Settler>()) });
}
