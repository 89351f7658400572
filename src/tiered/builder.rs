//! Settings of a cache with a second tier.

use super::clock::now;
use super::codec::{Codec, Schema};
use super::keys::{Name, Names, TierKey, quote_name};
use super::session::{Session, SessionSettings};
use super::transport::Tier2;
use super::{FirstTier, Inner, Tiered, nanos};
use crate::builder::Builder;
use crate::cache::Cache;
use crate::error::BuildError;
use crate::tier2::{Namespace, NamespaceSettings, SLOTS, Settings, Tier};
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// Why a [`Tiered`] cache could not be built.
#[derive(Debug)]
#[non_exhaustive]
pub enum TieredError {
    /// The settings of tier 1.
    Cache(BuildError),
    /// A setting is out of its range, or empty.
    Setting(&'static str),
    /// The thread could not be started.
    Thread(io::Error),
}

impl fmt::Display for TieredError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cache(error) => error.fmt(f),
            Self::Setting(text) => f.write_str(text),
            Self::Thread(error) => write!(f, "the second tier's thread could not be started: {error}"),
        }
    }
}

impl std::error::Error for TieredError {}

impl From<BuildError> for TieredError {
    fn from(error: BuildError) -> Self {
        Self::Cache(error)
    }
}

/// Settings of a [`Tiered`] cache, by [`Tiered::builder`].
#[must_use = "a builder does nothing until `build`"]
pub struct TieredBuilder<K: ?Sized, V> {
    prefix: String,
    name: String,
    tier2: Arc<dyn Tier2>,
    codec: Box<dyn Codec<V>>,
    cache: Builder<Name, V>,
    schema: Schema,
    ttl: Duration,
    local_ttl: Option<Duration>,
    unsynced_ttl: Duration,
    stale_while_revalidate: Duration,
    stale_if_error: Duration,
    lease: Duration,
    lease_wait: Option<Duration>,
    load_timeout: Duration,
    early_reload: f64,
    timeout: Duration,
    connect_timeout: Duration,
    max_loads: usize,
    max_value: usize,
    bus: bool,
    key: PhantomData<fn(&K)>,
}

impl<K: ?Sized, V> fmt::Debug for TieredBuilder<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = f.debug_struct("TieredBuilder");
        all.field("prefix", &self.prefix)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<K: TierKey + ?Sized, V: Clone + Send + Sync + 'static> TieredBuilder<K, V> {
    pub(super) fn new(prefix: String, name: String, tier2: Arc<dyn Tier2>, codec: Box<dyn Codec<V>>) -> Self {
        let seconds = Duration::from_secs;
        Self {
            prefix,
            name,
            tier2,
            codec,
            cache: Cache::builder(),
            schema: Schema::None,
            ttl: seconds(300),
            local_ttl: None,
            unsynced_ttl: seconds(1),
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            lease: Duration::from_millis(1_500),
            lease_wait: None,
            load_timeout: seconds(60),
            early_reload: 0.0,
            timeout: Duration::from_millis(100),
            connect_timeout: Duration::from_millis(100),
            max_loads: 64,
            max_value: 16 << 20,
            bus: true,
            key: PhantomData,
        }
    }

    /// Sets how many entries tier 1 holds at most. This or [`tier1`](Self::tier1) must be set.
    pub fn max_entries(mut self, entries: usize) -> Self {
        self.cache = self.cache.max_entries(entries);
        self
    }

    /// Sets up tier 1: its size, weigher or listener. Every entry has a time to live of its own,
    /// which this type sets.
    pub fn tier1(mut self, builder: Builder<Name, V>) -> Self {
        self.cache = builder;
        self
    }

    /// Sets the version of what values look like. Default: none.
    pub fn schema(mut self, schema: Schema) -> Self {
        self.schema = schema;
        self
    }

    /// Sets how long a value is fresh. Default: 5 minutes.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Sets how long a value stays in tier 1 at most without a new answer of the server: the bound
    /// of its age while the server does not answer. Default: 60 s where the server announces
    /// changes, otherwise 5 s; at most the ttl.
    pub fn local_ttl(mut self, ttl: Duration) -> Self {
        self.local_ttl = Some(ttl);
        self
    }

    /// Sets the same for the time in which the server answers, but does not announce changes.
    /// Default: 1 s.
    pub fn unsynced_ttl(mut self, ttl: Duration) -> Self {
        self.unsynced_ttl = ttl;
        self
    }

    /// Sets for how long after its ttl a value may be returned while one caller loads it anew. That
    /// caller waits for its load; the callers in other processes do not. Default: zero.
    pub fn stale_while_revalidate(mut self, grace: Duration) -> Self {
        self.stale_while_revalidate = grace;
        self
    }

    /// Sets for how long after its ttl a value may be returned if its load fails. Default: zero.
    pub fn stale_if_error(mut self, grace: Duration) -> Self {
        self.stale_if_error = grace;
        self
    }

    /// Sets after which time another process loads a key if the one that was loading it has died.
    /// Default: 1.5 s.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets after which time a caller that waits for another process's load loads for itself, and
    /// stores the value nowhere. Default: no limit.
    pub fn lease_wait(mut self, wait: Duration) -> Self {
        self.lease_wait = Some(wait);
        self
    }

    /// Sets after which time a load no longer makes other callers wait. Default: 60 s.
    pub fn load_timeout(mut self, timeout: Duration) -> Self {
        self.load_timeout = timeout;
        self
    }

    /// Sets that one caller may reload a value before it expires, the more likely the longer
    /// loading takes; 1 is usual. Default: 0, never.
    pub fn early_reload(mut self, factor: f64) -> Self {
        self.early_reload = factor;
        self
    }

    /// Sets how long one request may take. There are no retries. Default: 100 ms.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how long connecting may take. Default: 100 ms.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets the greatest number of concurrent loads while the server does not answer. Default: 64.
    pub fn max_loads(mut self, loads: usize) -> Self {
        self.max_loads = loads;
        self
    }

    /// Sets above how many bytes an encoded value stays in tier 1. Default: 16 MiB.
    pub fn max_value(mut self, bytes: usize) -> Self {
        self.max_value = bytes;
        self
    }

    /// Sets whether to use the server's announcements of changes. Default: true.
    pub fn bus(mut self, bus: bool) -> Self {
        self.bus = bus;
        self
    }

    fn check(&self) -> Result<(), TieredError> {
        let times = [
            self.ttl,
            self.lease,
            self.load_timeout,
            self.timeout,
            self.connect_timeout,
        ];
        let within = |timeout: Duration| timeout <= Duration::from_secs(60);
        let name = self.codec.name();
        let is_named = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let checks = [
            (!self.prefix.is_empty(), "prefix must not be empty"),
            (!self.name.is_empty(), "name must not be empty"),
            (
                times.iter().all(|time| !time.is_zero()),
                "ttl, lease and timeouts must not be zero",
            ),
            (
                within(self.timeout) && within(self.connect_timeout),
                "timeout and connect_timeout must be at most 60 s",
            ),
            (self.max_loads > 0, "max_loads must not be zero"),
            (
                self.early_reload.is_finite() && self.early_reload >= 0.0,
                "early_reload must be a finite number, zero or more",
            ),
            (is_named, "the codec's name must be letters, digits and `_`"),
            (self.schema.is_valid(), "the schema's text must be ASCII"),
        ];
        match checks.iter().find(|(holds, _)| !holds) {
            Some((_, text)) => Err(TieredError::Setting(text)),
            None => Ok(()),
        }
    }

    /// Builds the cache, and starts its thread. Connects to no server: that may be down.
    ///
    /// # Errors
    /// A setting is out of its range, or the thread could not be started.
    pub fn build(self) -> Result<Tiered<K, V>, TieredError> {
        self.check()?;
        let traits = self.tier2.traits();
        let has_bus = self.bus && traits.announces;
        let usual = Duration::from_secs(if has_bus { 60 } else { 5 });
        let local_ttl = self.local_ttl.unwrap_or(usual).min(self.ttl);
        let unsynced_ttl = self.unsynced_ttl.min(local_ttl);
        let settings = NamespaceSettings {
            ttl: nanos(self.ttl),
            local_ttl: nanos(local_ttl),
            unsynced_ttl: nanos(unsynced_ttl),
            stale_while_revalidate: nanos(self.stale_while_revalidate),
            stale_if_error: nanos(self.stale_if_error),
            lease: nanos(self.lease),
            lease_wait: self.lease_wait.map_or(0, |wait| nanos(wait).max(1)),
            load_timeout: nanos(self.load_timeout),
            early_reload: self.early_reload,
        };
        let bus = Settings {
            bus: has_bus,
            generation_per_node: traits.is_fixed,
            clock_resolution: traits.clock_resolution.max(1),
            ..Settings::default()
        };
        let tier = Tier::new(random(), bus);
        let namespace = Namespace::new(&tier, settings);
        let names = Names::new(&self.prefix, &self.name, self.codec.name(), &self.schema);
        let tags = self.tier2.generation_tags();
        let places = if traits.is_fixed {
            self.tier2.servers() as usize
        } else {
            tags.len()
        };
        if tags.is_empty() || tags.len() > SLOTS.into() || tags.len() != places {
            return Err(TieredError::Setting(
                "generation_tags of the transport are too few or too many",
            ));
        }
        let generations: Vec<_> = tags.iter().map(|tag| names.generation(tag)).collect();
        let borrowed: Vec<_> = generations.iter().map(|key| &**key).collect();
        namespace.set_generations(&borrowed);
        let canaries = format!("!hotset:{}:{:016x}:", quote_name(&self.prefix), random());
        let cache = self.cache.build()?;
        let session = SessionSettings {
            timeout: self.timeout,
            connect_timeout: self.connect_timeout,
            max_loads: self.max_loads,
            prefixes: [
                names.stem().to_vec(),
                common_prefix(&generations),
                canaries.into_bytes(),
            ],
            generations,
        };
        let local = Box::new(FirstTier(cache.clone()));
        let session = Arc::new(Session::new(tier, self.tier2, local, session));
        session.follow();
        if let Err(error) = session.start_threads() {
            session.stop_threads();
            return Err(TieredError::Thread(error));
        }
        let inner = Inner {
            cache,
            session,
            namespace,
            names,
            codec: self.codec,
            max_value: self.max_value.min(traits.max_value),
            unsynced_ttl,
        };
        Ok(Tiered(Arc::new(inner), PhantomData))
    }
}

/// Returns what all of these begin with.
fn common_prefix(all: &[Vec<u8>]) -> Vec<u8> {
    let Some((first, others)) = all.split_first() else {
        return Vec::new();
    };
    let common = |other: &Vec<u8>| first.iter().zip(other).take_while(|(a, b)| a == b).count();
    let length = others.iter().map(common).min().unwrap_or(first.len());
    first[..length].to_vec()
}

/// Returns 64 random bits, which no other process draws: not a child of this one either.
fn random() -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.write_u64(now());
    hasher.finish()
}
