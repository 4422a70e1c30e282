//! Stores of agent state by name, for programs that choose one by configuration.
//!
//! | driver | dsn | what it is |
//! |---|---|---|
//! | `inmem` | ignored | maps under one mutex, gone with the last handle; the reference that others are compared with |
//! | `cloakroom` | the path of a room | the room's agent states, durable; closing the store closes the room |
//!
//! ```
//! use cloakroom::drivers;
//! use cloakroom::state::{Identity, StateRecord, StateStore};
//! let store = drivers::open(&drivers::StateConfig::default())?;
//! let whose = Identity::new("acme", "ada", "session-1", "");
//! store.save(StateRecord::new(whose.clone(), "plan", *b"step 1")).wait()?;
//! assert_eq!(store.load(&whose, "plan").wait()?.bytes, b"step 1");
//! assert_eq!(drivers::registered(), ["cloakroom", "inmem"]);
//! # Ok::<(), cloakroom::state::StateError>(())
//! ```

mod inmem;

pub use inmem::InMemoryState;

use crate::error::Error;
use crate::room::Cloakroom;
use crate::stores::state::{StateError, StateStore};
use crate::sync::plain::Mutex;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// The driver that is taken when none is named.
pub const DEFAULT_DRIVER: &str = "inmem";

/// Which store of agent states to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateConfig {
    /// The name of the driver; `inmem` by default, and when it is empty.
    pub driver: String,
    /// Where its data is, in the driver's own terms.
    pub dsn: String,
}

impl Default for StateConfig {
    fn default() -> Self {
        Self { driver: DEFAULT_DRIVER.into(), dsn: String::new() }
    }
}

impl StateConfig {
    /// The driver called `driver`, with its data at `dsn`.
    #[must_use]
    pub fn new(driver: impl Into<String>, dsn: impl Into<String>) -> Self {
        Self { driver: driver.into(), dsn: dsn.into() }
    }
}

/// What makes a store of a configuration.
type Factory = Arc<dyn Fn(&StateConfig) -> Result<Arc<dyn StateStore>, StateError> + Send + Sync>;

static FACTORIES: LazyLock<Mutex<BTreeMap<String, Factory>>> = LazyLock::new(|| {
    let in_memory: Factory = Arc::new(|_| Ok(Arc::new(InMemoryState::new())));
    let in_a_file: Factory = Arc::new(open_file);
    Mutex::new(BTreeMap::from([
        (DEFAULT_DRIVER.to_owned(), in_memory),
        ("cloakroom".to_owned(), in_a_file),
    ]))
});

fn open_file(config: &StateConfig) -> Result<Arc<dyn StateStore>, StateError> {
    if config.dsn.is_empty() {
        let why = "the driver `cloakroom` needs the path of a file as its dsn";
        return Err(Error::InvalidConfig(why.into()).into());
    }
    let room = Cloakroom::open(&config.dsn)?;
    Ok(Arc::new(room.state().closing_the_room()))
}

/// Makes a driver known by `name`, for the whole process.
///
/// # Panics
/// When the name is empty, or a driver has it already: both are mistakes in the program, found when
/// it starts.
pub fn register(
    name: &str,
    factory: impl Fn(&StateConfig) -> Result<Arc<dyn StateStore>, StateError> + Send + Sync + 'static,
) {
    assert!(!name.is_empty(), "a state driver needs a name");
    let taken = {
        let mut factories = FACTORIES.lock();
        let taken = factories.contains_key(name);
        if !taken {
            factories.insert(name.to_owned(), Arc::new(factory));
        }
        taken
    };
    assert!(!taken, "a state driver called {name:?} is registered already");
}

/// The names of all drivers, sorted.
#[must_use]
pub fn registered() -> Vec<String> {
    FACTORIES.lock().keys().cloned().collect()
}

/// Opens the store that `config` describes.
///
/// # Errors
/// [`UnknownDriver`](StateError::UnknownDriver) when no driver has this name, and what the driver
/// says.
pub fn open(config: &StateConfig) -> Result<Arc<dyn StateStore>, StateError> {
    let name = if config.driver.is_empty() { DEFAULT_DRIVER } else { config.driver.as_str() };
    // The factory runs without the lock, so that it may open another driver.
    let factory = FACTORIES.lock().get(name).cloned();
    match factory {
        Some(factory) => factory(config),
        None => Err(StateError::UnknownDriver { name: name.to_owned(), known: registered() }),
    }
}
