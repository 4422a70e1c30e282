//! Opening a room, the room itself, and its transactions.

use crate::arguments::{durability, span, whole};
use crate::failure::Failure;
use crate::js::{Js, Settler};
use crate::out::Out;
use crate::registry::OpenRoom;
use crate::watch::{NativeWatch, WatchOptions};
use cloakroom::{Builder, Cloakroom, Error, Pending};
use napi::bindgen_prelude::{Function, Unknown};
use napi::{Env, Task};
use napi_derive::napi;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::rc::Rc;
use std::sync::Arc;

/// How a call answers: with a promise, with the value, or with the value within the transaction
/// whose function runs now.
pub const SYNC: u32 = 1;
pub const WITHIN: u32 = 2;

/// Work for libuv's pool. It answers through a `Pending`, so its own promise is not looked at.
pub struct Slow(Option<Box<dyn FnOnce() + Send>>);

impl Task for Slow {
    type Output = ();
    type JsValue = ();

    fn compute(&mut self) -> napi::Result<()> {
        if let Some(work) = self.0.take() {
            work();
        }
        Ok(())
    }

    fn resolve(&mut self, _: Env, (): ()) -> napi::Result<()> {
        Ok(())
    }
}

/// What opens a room, as the JavaScript beside this library filled it in.
#[napi(object)]
pub struct NativeOptions {
    pub durability: f64,
    pub log_capacity: Option<f64>,
    pub cache_size: Option<f64>,
    /// Negative: only when asked.
    pub sweep_interval: Option<f64>,
    pub lock_timeout: Option<f64>,
    pub log_stall: Option<f64>,
    pub read_only: bool,
    pub host_now: Option<f64>,
}

impl NativeOptions {
    fn builder(&self) -> Result<Builder, Failure> {
        let mut builder = Cloakroom::builder().durability(durability(self.durability)?);
        if let Some(bytes) = self.log_capacity {
            builder = builder.log_capacity(whole(bytes)?);
        }
        if let Some(bytes) = self.cache_size {
            builder = builder.cache_size(whole(bytes)?);
        }
        if let Some(ms) = self.sweep_interval {
            let every = if ms < 0.0 { None } else { Some(span(ms)?) };
            builder = builder.sweep_interval(every);
        }
        if let Some(ms) = self.lock_timeout {
            builder = builder.lock_timeout(span(ms)?);
        }
        if let Some(ms) = self.log_stall {
            builder = builder.log_stall(span(ms)?);
        }
        Ok(builder)
    }

    fn open(self, path: &str) -> Result<OpenRoom, Failure> {
        let host_now = self.host_now.map(whole).transpose()?;
        OpenRoom::open(path, self.read_only, host_now, self.builder()?)
    }
}

impl From<Opened> for Out {
    fn from(opened: Opened) -> Self {
        Self::Room(opened.0)
    }
}

struct Opened(OpenRoom);

/// What one environment needs: the main thread and every worker make one.
#[napi]
pub struct Binding {
    settler: Rc<Settler>,
}

#[napi]
impl Binding {
    #[napi(constructor)]
    pub fn new(
        env: Env,
        make_error: Unknown<'_>,
        parse: Unknown<'_>,
        now: Unknown<'_>,
    ) -> napi::Result<Self> {
        Ok(Self { settler: Settler::new(&env, &make_error, &parse, &now)? })
    }

    #[napi]
    pub fn open(&self, env: Env, path: String, options: NativeOptions) -> napi::Result<Js> {
        slow(&env, &self.settler, move || options.open(&path).map(Opened))
    }

    #[napi]
    pub fn open_sync(&self, path: String, options: NativeOptions) -> Js {
        let opened = match self.settler.is_in_transaction() {
            // It would wait for what others do with the room that this thread holds up.
            true => Err(Failure::from(Error::NestedTransaction)),
            false => options.open(&path).map(Opened),
        };
        self.settler.answer(opened)
    }

    #[napi]
    pub fn new_event_id(&self) -> String {
        cloakroom::state::EventId::new().as_str().to_owned()
    }
}

/// Runs `work` on libuv's pool; a promise of what it answers.
fn slow<T: Into<Out> + Send + 'static>(
    env: &Env,
    settler: &Settler,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> napi::Result<Js> {
    let (answer, pending) = Pending::<T, Refused>::channel();
    let work = move || answer.send(work().map_err(Refused));
    let promise = settler.promise(pending);
    env.spawn(Slow(Some(Box::new(work))))?;
    Ok(promise)
}

/// A failure as the error of a `Pending`.
struct Refused(Failure);

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self(error.into())
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        refused.0
    }
}

#[napi]
pub struct NativeRoom {
    pub(crate) settler: Rc<Settler>,
    pub(crate) open: Arc<OpenRoom>,
}

impl NativeRoom {
    pub fn new(settler: Rc<Settler>, open: OpenRoom) -> Self {
        Self { settler, open: Arc::new(open) }
    }

    /// The room for work on the pool.
    fn slow<T: Into<Out> + Send + 'static>(
        &self,
        env: &Env,
        work: impl FnOnce(&Cloakroom) -> Result<T, Failure> + Send + 'static,
    ) -> napi::Result<Js> {
        ready(&self.settler, &self.open);
        let open = Arc::clone(&self.open);
        slow(env, &self.settler, move || work(open.room()?))
    }
}

/// Moves the clock of a room to the time of the host, if the host is its clock.
pub fn ready(settler: &Settler, open: &OpenRoom) {
    if let Some(clock) = open.clock() {
        clock.set(settler.now());
    }
}

#[napi]
impl NativeRoom {
    #[napi(getter)]
    pub fn closed(&self) -> bool {
        self.open.is_closed()
    }

    /// Takes the time of the host.
    #[napi]
    pub fn tick(&self) {
        ready(&self.settler, &self.open);
    }

    #[napi]
    pub fn close(&self, env: Env) -> napi::Result<Js> {
        if !self.open.mark_closed() {
            return Ok(self.settler.promise(Pending::<(), Error>::ready(Ok(()))));
        }
        let open = Arc::clone(&self.open);
        slow(&env, &self.settler, move || open.finish().map_err(Failure::from))
    }

    #[napi]
    pub fn close_sync(&self) -> Js {
        if self.settler.is_in_transaction() {
            return self.settler.answer(Err::<(), _>(Error::NestedTransaction));
        }
        let closed = if self.open.mark_closed() { self.open.finish() } else { Ok(()) };
        self.settler.answer(closed)
    }

    /// `run` answers whether what it did is to be kept.
    #[napi]
    pub fn atomically(&self, run: Function<'_, (), bool>) -> Js {
        ready(&self.settler, &self.open);
        let room = match self.open.room() {
            Ok(room) => room,
            Err(failure) => return self.settler.promise(Pending::<(), _>::ready(Err(failure))),
        };
        let done: Pending<(), Refused> =
            room.atomically(|tx| match self.settler.enter(tx, || run.call(())) {
                Ok(true) => Ok(()),
                Ok(false) | Err(_) => Err(Refused(Failure::argument("rolled back"))),
            });
        self.settler.promise(done)
    }

    #[napi]
    pub fn watch(&self, options: WatchOptions) -> napi::Result<Option<NativeWatch>> {
        let watch = self.open.room().and_then(|room| Ok(room.watch(options.filter()?)?));
        match watch {
            Ok(watch) => Ok(Some(NativeWatch::new(Rc::clone(&self.settler), watch))),
            Err(failure) => {
                self.settler.answer(Err::<(), _>(failure));
                Ok(None)
            }
        }
    }

    #[napi]
    pub fn stats(&self, env: Env) -> napi::Result<Js> {
        self.slow(&env, |room| {
            let stats = room.stats()?;
            let stats = serde_json::to_value(stats);
            stats.map_err(|error| Failure::new("ENCODE", error.to_string()))
        })
    }

    #[napi]
    pub fn verify(&self, env: Env) -> napi::Result<Js> {
        self.slow(&env, |room| Ok(room.verify()?))
    }

    #[napi]
    pub fn backup(&self, env: Env, path: String) -> napi::Result<Js> {
        self.slow(&env, move |room| Ok(room.backup(path)?))
    }

    #[napi]
    pub fn sweep(&self, env: Env) -> napi::Result<Js> {
        self.slow(&env, |room| Ok(room.sweep()?))
    }

    #[napi]
    pub fn checkpoint(&self, env: Env) -> napi::Result<Js> {
        self.slow(&env, |room| Ok(room.checkpoint()?))
    }

    #[napi]
    pub fn compact(&self, env: Env) -> napi::Result<Js> {
        self.slow(&env, |room| Ok(room.compact()?))
    }

    /// Writes a new file; one that exists is not replaced.
    #[napi]
    pub fn export(&self, env: Env, path: String) -> napi::Result<Js> {
        self.slow(&env, move |room| {
            let failed = |error: std::io::Error| {
                let mut failure = Failure::new("IO", format!("{path}: {error}"));
                failure.data = serde_json::json!({ "errno": error.raw_os_error() });
                failure
            };
            let mut file = BufWriter::new(File::create_new(&path).map_err(failed)?);
            room.export(&mut file)?;
            file.flush().map_err(failed)?;
            file.get_ref().sync_all().map_err(failed)
        })
    }
}
