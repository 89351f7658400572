//! How a cache is described before it is built.

use crate::cache::Cache;
use crate::clock::{Clock, Source, nanos};
use crate::engine::{ExpirySettings, Listener, Settings};
use crate::error::BuildError;
use crate::expiry::Expiry;
use crate::negative::Failures;
use crate::policy::PolicyKind;
use crate::refresh::{RefreshTask, Runner};
use crate::snapshot::{AutoSnapshot, AutoSnapshotter, Codec};
use crate::stats::Cause;
use crate::ticker::Service;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// The default hasher: foldhash, seeded anew for every process and cache.
pub type DefaultHasher = foldhash::fast::RandomState;

/// Says what an entry weighs.
pub(crate) type Weigher<K, V> = Box<dyn Fn(&K, &V) -> u64 + Send + Sync>;

/// A setting `T` of what not all keys and values can have, and how it is started, as an `R`: only those that may go to another
/// thread have a ticker, only those with a `Codec` a snapshot.
enum DeferredSetting<K, V, S, T, R> {
    None,
    Some(T, fn(&Cache<K, V, S>, T) -> io::Result<R>),
    /// It was set for another hasher.
    LostByHasher,
}

impl<K, V, S, T, R> DeferredSetting<K, V, S, T, R> {
    /// For another hasher.
    fn lose_by_hasher<S2, R2>(self) -> DeferredSetting<K, V, S2, T, R2> {
        match self {
            Self::None => DeferredSetting::None,
            Self::Some(..) | Self::LostByHasher => DeferredSetting::LostByHasher,
        }
    }

    fn start(self, cache: &Cache<K, V, S>) -> Result<Option<R>, BuildError> {
        match self {
            Self::Some(setting, start) => {
                let started = start(cache, setting).map(Some);
                started.map_err(|source| BuildError::ThreadSpawn {
                    source: Arc::new(source),
                })
            }
            Self::None | Self::LostByHasher => Ok(None),
        }
    }
}

/// Describes a [`Cache`]; made by [`Cache::builder`].
#[must_use = "a builder does nothing until build() is called"]
pub struct Builder<K, V, S = DefaultHasher> {
    pub(crate) max_entries: Option<usize>,
    pub(crate) max_weight: Option<u64>,
    pub(crate) weigher: Option<Weigher<K, V>>,
    pub(crate) policy: PolicyKind,
    pub(crate) listener: Option<Listener<K, V>>,
    pub(crate) time: ExpirySettings<K, V>,
    jitter: f64,
    background: Option<Runner>,
    negative_ttl: Option<Duration>,
    ticker: DeferredSetting<K, V, S, Duration, Service>,
    snapshot: DeferredSetting<K, V, S, AutoSnapshot, AutoSnapshotter<K, V, S>>,
    pub(crate) hasher: S,
}

impl<K, V> Builder<K, V> {
    pub(crate) fn new() -> Self {
        Self {
            max_entries: None,
            max_weight: None,
            weigher: None,
            policy: PolicyKind::default(),
            listener: None,
            time: ExpirySettings::new(Source::System),
            jitter: 0.0,
            background: None,
            negative_ttl: None,
            ticker: DeferredSetting::None,
            snapshot: DeferredSetting::None,
            hasher: DefaultHasher::default(),
        }
    }
}

impl<K, V, S> Builder<K, V, S> {
    /// Holds at most `entries` entries. 0 makes a cache that keeps nothing; `usize::MAX` sets no bound but the
    /// [limits](Cache#limits) of every cache.
    ///
    /// From 1,024 to 2^26 entries the table is sized for this number up front (about 18 bytes each; the operating system
    /// provides memory when it is first used, on Linux by 2 MB where huge pages are enabled); else it grows as it fills.
    pub fn max_entries(mut self, entries: usize) -> Self {
        self.max_entries = Some(entries);
        self
    }

    /// Holds entries up to this total weight, in whatever unit the [`weigher`](Self::weigher) counts. 0 keeps only what
    /// weighs nothing; `u64::MAX` is no bound.
    pub fn max_weight(mut self, weight: u64) -> Self {
        self.max_weight = Some(weight);
        self
    }

    /// Says what an entry weighs. Called once for every entry, when it is inserted, by the inserting thread, under no
    /// lock; if it panics, nothing is inserted. A weight may be 0. An entry heavier than the whole capacity is not kept.
    pub fn weigher(mut self, weigher: impl Fn(&K, &V) -> u64 + Send + Sync + 'static) -> Self {
        self.weigher = Some(Box::new(weigher));
        self
    }

    /// Which entries make room for others; W-TinyLFU unless set.
    pub fn policy(mut self, policy: PolicyKind) -> Self {
        self.policy = policy;
        self
    }

    /// Calls `listener` once for every entry that leaves the cache, with the cause.
    ///
    /// The thread that unlinked the entry calls it, under no lock, before its own call returns (or the call around that, if it
    /// comes from a listener or destructor); the listener may use the cache. The entry can no longer be found by then. If the
    /// listener panics, the cache finishes its work, and then the panic goes on in that call. Entries still in a cache that is dropped are not reported.
    /// A listener that holds a handle to its own cache keeps that cache alive for ever.
    pub fn on_removal(mut self, listener: impl Fn(&K, &V, Cause) + Send + Sync + 'static) -> Self {
        self.listener = Some(Box::new(listener));
        self
    }

    /// Ends an entry so long after it was inserted, or its value last replaced. From then on it is a miss, and the next
    /// operation on the cache begins to free what is over, a few entries at a time.
    ///
    /// Settings of time cost 16 bytes per entry (40 where hits prolong lives or values are reloaded), and a look at the clock per
    /// call.
    pub fn time_to_live(mut self, ttl: Duration) -> Self {
        self.time.time_to_live = Some(nanos(ttl));
        self
    }

    /// Ends an entry so long after it was last inserted, replaced or found by a lookup.
    ///
    /// Together with an [`Expiry`]: what that says after a read counts too, and by default that is what the entry has left.
    /// So to be prolonged by hits, `after_read` has to return `None` or a longer time.
    pub fn time_to_idle(mut self, tti: Duration) -> Self {
        self.time.time_to_idle = Some(nanos(tti));
        self
    }

    /// Lets `expiry` say how long each entry lives. With other settings of time, the earliest end counts.
    pub fn expiry(mut self, expiry: impl Expiry<K, V> + 'static) -> Self {
        self.time.expiry = Some(Box::new(expiry));
        self
    }

    /// Takes a random part, of up to this fraction, off every time to live: so that what was loaded together does not end
    /// together. From 0 to below 1.
    pub fn jitter(mut self, fraction: f64) -> Self {
        self.jitter = fraction;
        self
    }

    /// Has a value that is older than this reloaded by the next call that brings a loader (`get_or_insert_with` and its
    /// kin), while it still lives: one caller reloads, all others are served the old value (also known as refresh-ahead,
    /// or stale-while-revalidate). That caller waits for its loader, unless it is
    /// [`get_or_refresh_with`](Cache::get_or_refresh_with) and there is a [`refresh_executor`](Self::refresh_executor). A reload that fails,
    /// or whose future is dropped, leaves the old value, and is tried again after a quarter of this time.
    ///
    /// Of use together with a longer [`time_to_live`](Self::time_to_live), from which on all wait for the loader.
    pub fn refresh_after(mut self, age: Duration) -> Self {
        self.time.refresh_after = Some(nanos(age));
        self
    }

    /// After a reload that failed, lets the old value live for at least so long, beyond its time to live if need be (also
    /// known as stale-if-error). Of use with [`refresh_after`](Self::refresh_after).
    pub fn stale_if_error(mut self, grace: Duration) -> Self {
        self.time.grace = nanos(grace);
        self
    }

    /// Remembers a failed load for so long (also known as negative caching): meanwhile, whoever asks for the key gets that
    /// error at once, if it expects one of that type, and no loader runs. Inserting, removing or computing the key ends
    /// that. An eighth as many keys as the cache has room for are remembered, up to 16,384; the oldest are forgotten first.
    pub fn negative_ttl(mut self, ttl: Duration) -> Self {
        self.negative_ttl = Some(ttl);
        self
    }

    /// Runs reloads where `run` puts them: on a thread pool, say, or a runtime's blocking threads. The caller that finds a value
    /// due calls it, under no lock.
    ///
    /// If `run` panics, or drops its task, that reload is abandoned: the caller gets the old value, and a later call reloads,
    /// after a quarter of [`refresh_after`](Self::refresh_after).
    ///
    /// ```
    /// use hotset::Cache;
    /// use std::time::Duration;
    ///
    /// # fn main() -> Result<(), hotset::BuildError> {
    /// let prices: Cache<&str, f64> = Cache::builder()
    ///     .max_entries(1000)
    ///     .time_to_live(Duration::from_secs(60))
    ///     .refresh_after(Duration::from_secs(10))
    ///     .background(|task| drop(std::thread::spawn(task)))
    ///     .build()?;
    /// prices.get_or_refresh_with("tea", || 3.20); // waits for the first value only
    /// # Ok(())
    /// # }
    /// ```
    pub fn refresh_executor(mut self, run: impl Fn(RefreshTask) + Send + Sync + 'static) -> Self {
        self.background = Some(Box::new(run));
        self
    }

    /// Takes the time from `clock` instead of the system's monotonic clock; see [`Clock`].
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.time.clock = Source::Custom(Arc::new(clock));
        self
    }

    /// Hashes keys with `hasher` instead of [`DefaultHasher`]. A hasher without a random seed lets whoever chooses the keys
    /// send many of them to one place; keys beyond the 190 or so that fit there then evict each other.
    pub fn hasher<T>(self, hasher: T) -> Builder<K, V, T> {
        Builder {
            max_entries: self.max_entries,
            max_weight: self.max_weight,
            weigher: self.weigher,
            policy: self.policy,
            listener: self.listener,
            time: self.time,
            jitter: self.jitter,
            background: self.background,
            negative_ttl: self.negative_ttl,
            ticker: self.ticker.lose_by_hasher(),
            snapshot: self.snapshot.lose_by_hasher(),
            hasher,
        }
    }

    /// Builds the cache, or says which settings do not go together.
    pub fn build(mut self) -> Result<Cache<K, V, S>, BuildError> {
        let lives = [self.time.time_to_live, self.time.time_to_idle, self.time.refresh_after];
        if lives.contains(&Some(0))
            || self.negative_ttl == Some(Duration::ZERO)
            || matches!(self.ticker, DeferredSetting::Some(Duration::ZERO, _))
            || matches!(&self.snapshot, DeferredSetting::Some(keep, _) if keep.every == Some(Duration::ZERO))
        {
            return Err(BuildError::ZeroDuration);
        }
        if matches!(self.ticker, DeferredSetting::LostByHasher) {
            return Err(BuildError::TickerBeforeHasher);
        }
        if matches!(self.snapshot, DeferredSetting::LostByHasher) {
            return Err(BuildError::SnapshotBeforeHasher);
        }
        if !(0.0..1.0).contains(&self.jitter) {
            return Err(BuildError::Jitter);
        }
        self.time.jitter = (self.jitter * (1u64 << 32) as f64) as u32;
        let capacity = match (self.max_entries, self.max_weight) {
            (None, None) if self.weigher.is_some() => return Err(BuildError::MissingMaxWeight),
            (None, None) => return Err(BuildError::MissingCapacity),
            (Some(_), Some(_)) => return Err(BuildError::ConflictingCapacities),
            (Some(_), None) if self.weigher.is_some() => return Err(BuildError::MissingMaxWeight),
            (None, Some(_)) if self.weigher.is_none() => return Err(BuildError::MissingWeigher),
            (Some(entries), None) => u64::try_from(entries).unwrap_or(u64::MAX),
            (None, Some(weight)) => weight,
        };
        let settings = Settings {
            policy: self.policy,
            capacity,
            weighted: self.weigher.is_some(),
            listener: self.listener,
            time: self.time,
        };
        let failures = match self.negative_ttl {
            Some(ttl) => Some(Box::new(Failures::new(
                capacity,
                nanos(ttl),
                settings.time.clock.clone(),
            )?)),
            None => None,
        };
        let cache = Cache::from_parts(settings, self.weigher, self.background, failures, self.hasher)?;
        let (ticker, auto_snapshot) = (self.ticker.start(&cache)?, self.snapshot.start(&cache)?);
        cache.attach_services(ticker, auto_snapshot);
        Ok(cache)
    }
}

impl<K, V, S> Builder<K, V, S>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: Send + Sync + 'static,
{
    /// Starts a thread, named `hotset-ticker`, that runs maintenance at intervals of `every`, so that expired entries are freed
    /// even while no other thread uses the cache.
    ///
    /// Removal listeners and destructors may then run on that thread; if one panics, the thread continues. Must be set after
    /// the [`hasher`](Self::hasher).
    ///
    /// # Concurrency
    /// The drop of the last handle to the cache ends the thread and waits for it, listeners and destructors that it is running
    /// included. So that drop must not happen under a lock that one of them takes. A drop on the thread itself, or on a ticker
    /// or saver of another cache, does not wait: then the thread drops the entries.
    pub fn ticker(mut self, every: Duration) -> Self {
        self.ticker = DeferredSetting::Some(every, Cache::start_ticker);
        self
    }
}

impl<K, V, S> Builder<K, V, S>
where
    K: Hash + Eq + Codec + Send + Sync + 'static,
    V: Codec + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    /// Has the cache load and save a [snapshot](crate::snapshot) by itself, as [`AutoSnapshot`] says. To be set after the
    /// [`hasher`](Self::hasher).
    pub fn snapshot(mut self, keep: AutoSnapshot) -> Self {
        self.snapshot = DeferredSetting::Some(keep, Cache::start_auto_snapshot);
        self
    }
}

impl<K, V, S> fmt::Debug for Builder<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("max_entries", &self.max_entries)
            .field("max_weight", &self.max_weight)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
