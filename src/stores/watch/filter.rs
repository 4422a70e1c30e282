//! What a watcher wants to see.

use crate::limits::DEFAULT_WATCH_BUFFER;
use crate::stores::owner::StoreKind;
use crate::stores::state::Identity;

/// What a [`Watch`](super::Watch) shows, and how much it keeps. Every condition that is given must
/// hold.
///
/// ```
/// use cloakroom::Cloakroom;
/// use cloakroom::cache::CacheStore;
/// use cloakroom::watch::{ChangeKind, Filter};
/// let room = Cloakroom::builder().open_in_memory()?;
/// let mut watch = room.watch(Filter::cache("pages").prefix("/news/"))?;
/// room.cache::<String>("pages").set("/news/1", &"<p>".to_owned(), 60).wait()?;
/// let change = watch.recv().unwrap();
/// assert_eq!((change.key.as_str(), change.kind), ("/news/1", ChangeKind::Put));
/// # Ok::<(), cloakroom::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchFilter {
    store: Option<StoreKind>,
    name: Option<String>,
    prefix: String,
    tenant: Option<String>,
    buffer: usize,
}

impl Default for WatchFilter {
    fn default() -> Self {
        Self::all()
    }
}

impl WatchFilter {
    /// Every change of the room.
    #[must_use]
    pub fn all() -> Self {
        Self {
            store: None,
            name: None,
            prefix: String::new(),
            tenant: None,
            buffer: DEFAULT_WATCH_BUFFER,
        }
    }

    /// Changes of all stores of this kind, whatever their names.
    #[must_use]
    pub fn store(kind: StoreKind) -> Self {
        Self { store: Some(kind), ..Self::all() }
    }

    /// Changes of form tokens.
    #[must_use]
    pub fn form_tokens() -> Self {
        Self::store(StoreKind::FORM_TOKENS)
    }

    /// Changes of claim-check states.
    #[must_use]
    pub fn handoff() -> Self {
        Self::store(StoreKind::HANDOFF)
    }

    /// Changes of the cache called `name`.
    #[must_use]
    pub fn cache(name: &str) -> Self {
        Self::store(StoreKind::CACHE).named(name)
    }

    /// Changes of the jobs of the store called `name`.
    #[must_use]
    pub fn dedupe(name: &str) -> Self {
        Self::store(StoreKind::DEDUPE).named(name)
    }

    /// Changes of the plain limiter called `name`.
    #[must_use]
    pub fn rate_limit(name: &str) -> Self {
        Self::store(StoreKind::RATE_LIMIT).named(name)
    }

    /// Changes of the adaptive limiter called `name`.
    #[must_use]
    pub fn adaptive_rate_limit(name: &str) -> Self {
        Self::store(StoreKind::ADAPTIVE_RATE_LIMIT).named(name)
    }

    /// Changes of agent states.
    #[must_use]
    pub fn state() -> Self {
        Self::store(StoreKind::STATE)
    }

    /// Only those of stores with this name. Stores without a name have no changes then.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Only those whose [`key`](super::Change::key) begins with `prefix`, literally: no character
    /// of it has a meaning of its own. For agent states this is the kind. A
    /// [`Cleared`](super::ChangeKind::Cleared) concerns every key, and passes whatever the prefix.
    #[must_use]
    pub fn prefix(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.prefix);
        self
    }

    /// Only those of agent states of exactly this tenant.
    #[must_use]
    pub fn tenant(mut self, tenant: &str) -> Self {
        self.tenant = Some(tenant.to_owned());
        self
    }

    /// How many changes are kept for a watcher that does not take them in time. The default is
    /// [`DEFAULT_WATCH_BUFFER`]. One transaction is kept whatever its size when nothing else is.
    #[must_use]
    pub fn buffer(mut self, changes: usize) -> Self {
        self.buffer = changes;
        self
    }

    /// How many changes are kept.
    pub(crate) fn capacity(&self) -> usize {
        self.buffer
    }

    pub(super) fn admits_store(&self, store: StoreKind, name: Option<&str>) -> bool {
        self.store.is_none_or(|wanted| wanted == store)
            && self.name.as_deref().is_none_or(|wanted| name == Some(wanted))
    }

    pub(super) fn admits_key(&self, key: &str) -> bool {
        key.starts_with(&self.prefix)
    }

    pub(super) fn admits_identity(&self, identity: Option<&Identity>) -> bool {
        let of_tenant = |wanted: &str| identity.is_some_and(|identity| identity.tenant == wanted);
        self.tenant.as_deref().is_none_or(of_tenant)
    }
}
