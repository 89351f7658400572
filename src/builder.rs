//! The builder: the settings of a cache, and what makes them wrong.

use crate::cache::{Cache, Inner, OnLastDrop};
use crate::clock::{Clock, TimeSource, nanos};
use crate::engine::{ExpirySettings, Listener, Pointee, Settings};
use crate::error::BuildError;
use crate::expiry::Expiry;
use crate::negative::Failures;
use crate::policy::PolicyKind;
use crate::profile::Autosize;
use crate::settings::{DefaultHasher, RefreshTask, Runner, Weigher};
use crate::snapshot::AutoSnapshot;
#[cfg(feature = "snapshot")]
use crate::snapshot::Codec;
use crate::stats::Cause;
#[cfg(all(feature = "stats-file", unix))]
use crate::stats_file::{Registration, register};
use crate::ticker::{Kind, Service};
use std::fmt;
#[cfg(any(feature = "snapshot", feature = "stats-file"))]
use std::hash::BuildHasher;
use std::hash::Hash;
use std::io;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A setting `T` whose start, which yields an `R`, has stronger bounds than the builder: a ticker
/// needs keys and values that may move to another thread, a snapshot needs a `Codec`. So the method
/// that sets it stores the function that starts it.
struct StartSetting<K, V, S, T, R> {
    setting: T,
    start: fn(&Cache<K, V, S>, T) -> io::Result<R>,
}

/// A name, and the function that registers it.
#[cfg(all(feature = "stats-file", unix))]
type NameSetting<K, V, S> = (String, fn(&Cache<K, V, S>, String) -> Registration);

type SnapshotSetting<K, V, S> = StartSetting<K, V, S, AutoSnapshot, OnLastDrop<K, V, S>>;

impl<K, V, S, T, R> StartSetting<K, V, S, T, R> {
    fn start(self, cache: &Cache<K, V, S>) -> Result<R, BuildError> {
        (self.start)(cache, self.setting).map_err(|source| BuildError::ThreadSpawn {
            source: Arc::new(source),
        })
    }
}

/// Configures and builds a [`Cache`]. Created by [`Cache::builder`].
///
/// A cache needs a capacity: [`max_entries`](Self::max_entries), or
/// [`max_weight`](Self::max_weight) with a [`weigher`](Self::weigher). All other settings are
/// optional.
///
/// # Examples
///
/// ```
/// use hotset::{Cache, Policy};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), hotset::BuildError> {
/// let pages: Cache<String, Vec<u8>> = Cache::builder()
///     .max_weight(64 << 20)
///     .weigher(|url: &String, page: &Vec<u8>| (url.len() + page.len()) as u64)
///     .time_to_live(Duration::from_secs(300))
///     .policy(Policy::WTinyLfu)
///     .build()?;
/// pages.insert("/index".to_owned(), b"<html>".to_vec());
/// pages.run_pending();
/// assert_eq!(pages.weight(), 12);
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing until build() is called"]
pub struct Builder<K, V, S = DefaultHasher> {
    pub(crate) max_entries: Option<usize>,
    pub(crate) max_weight: Option<u64>,
    pub(crate) weigher: Option<Weigher<K, V>>,
    pub(crate) policy: PolicyKind,
    pub(crate) listener: Option<Listener<K, V>>,
    pub(crate) pointee: Option<Pointee<V>>,
    pub(crate) time: ExpirySettings<K, V>,
    jitter: f64,
    background: Option<Runner>,
    negative_ttl: Option<Duration>,
    profile: bool,
    autosize: Option<(RangeInclusive<u64>, f64)>,
    ticker: Option<StartSetting<K, V, S, Duration, Service>>,
    snapshot: Option<SnapshotSetting<K, V, S>>,
    #[cfg(all(feature = "stats-file", unix))]
    name: Option<NameSetting<K, V, S>>,
    pub(crate) hasher: S,
}

impl<K: Hash + Eq, V> Cache<K, V> {
    /// Returns a cache of at most `max_entries` entries, with the W-TinyLFU policy.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache: hotset::Cache<u64, String> = hotset::Cache::new(10_000);
    /// ```
    ///
    /// # Panics
    ///
    /// If there is no memory for its table. [`Builder::build`] returns that as an error.
    pub fn new(max_entries: usize) -> Self {
        Self::builder()
            .max_entries(max_entries)
            .build()
            .expect("a number of entries, and memory for their table, is all a cache needs")
    }
}

impl<K, V> Cache<K, V> {
    /// Returns a builder with default settings and no capacity.
    pub fn builder() -> Builder<K, V> {
        Self::builder_with_hasher(DefaultHasher::default())
    }
}

impl<K, V, S> Cache<K, V, S> {
    /// Returns a builder with default settings and no capacity, for a cache that hashes keys with
    /// `hasher` instead of [`DefaultHasher`].
    ///
    /// With a hasher that has no random seed, a client that chooses the keys can direct many of
    /// them to one bucket. Beyond the 190 or so that fit near it, such keys evict each other.
    ///
    /// # Examples
    ///
    /// ```
    /// use hotset::Cache;
    /// use std::hash::RandomState;
    ///
    /// # fn main() -> Result<(), hotset::BuildError> {
    /// let cache: Cache<&str, u32, RandomState> =
    ///     Cache::builder_with_hasher(RandomState::new()).max_entries(100).build()?;
    /// cache.insert("tea", 3);
    /// assert_eq!(cache.get("tea"), Some(3));
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder_with_hasher(hasher: S) -> Builder<K, V, S> {
        Builder {
            max_entries: None,
            max_weight: None,
            weigher: None,
            policy: PolicyKind::default(),
            listener: None,
            pointee: None,
            time: ExpirySettings::new(TimeSource::System),
            jitter: 0.0,
            background: None,
            negative_ttl: None,
            profile: false,
            autosize: None,
            ticker: None,
            snapshot: None,
            #[cfg(all(feature = "stats-file", unix))]
            name: None,
            hasher,
        }
    }
}

impl<K, V, S> Builder<K, V, S> {
    /// Bounds the cache to `entries` entries.
    ///
    /// A cache of 0 entries keeps nothing. `usize::MAX` sets no bound but the
    /// [limits](Cache#limits) of every cache.
    ///
    /// From 1,024 to 2^26 entries, the table is allocated for this number when the cache is built:
    /// about 18 bytes per entry. The operating system provides the memory when it is first used, on
    /// Linux in steps of 2 MB where huge pages are enabled. Outside that range, the table grows as
    /// it fills.
    pub fn max_entries(mut self, entries: usize) -> Self {
        self.max_entries = Some(entries);
        self
    }

    /// Bounds the sum of the entries' weights, in the unit of the [`weigher`](Self::weigher).
    ///
    /// With a bound of 0, the cache keeps only entries of weight 0. `u64::MAX` sets no bound.
    pub fn max_weight(mut self, weight: u64) -> Self {
        self.max_weight = Some(weight);
        self
    }

    /// Sets the function that returns an entry's weight.
    ///
    /// A weight may be 0. An entry heavier than the capacity is not kept.
    ///
    /// # Concurrency
    ///
    /// The inserting thread calls `weigher` once for each entry, without a lock held. If `weigher`
    /// panics, nothing is inserted.
    pub fn weigher(mut self, weigher: impl Fn(&K, &V) -> u64 + Send + Sync + 'static) -> Self {
        self.weigher = Some(Box::new(weigher));
        self
    }

    /// Sets the eviction policy: it chooses the entries that make room for others. The default is
    /// [`Policy::WTinyLfu`](crate::Policy::WTinyLfu).
    pub fn policy(mut self, policy: PolicyKind) -> Self {
        self.policy = policy;
        self
    }

    /// Sets a listener that is called once for each entry that leaves the cache, with the
    /// [`Cause`].
    ///
    /// When it is called, lookups no longer find the entry. Entries that are in the cache when its
    /// last handle is dropped are not reported. A listener that holds a handle to its own cache
    /// keeps that cache alive forever.
    ///
    /// # Examples
    ///
    /// ```
    /// use hotset::{Cache, Cause};
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicU32, Ordering};
    ///
    /// # fn main() -> Result<(), hotset::BuildError> {
    /// let replaced = Arc::new(AtomicU32::new(0));
    /// let count = replaced.clone();
    /// let cache = Cache::builder()
    ///     .max_entries(100)
    ///     .on_removal(move |_key: &&str, _value: &u32, cause| {
    ///         if cause == Cause::Replaced {
    ///             count.fetch_add(1, Ordering::Relaxed);
    ///         }
    ///     })
    ///     .build()?;
    /// cache.insert("tea", 1);
    /// cache.insert("tea", 2);
    /// assert_eq!(replaced.load(Ordering::Relaxed), 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If the listener panics, the cache completes its work, and then the panic continues in the
    /// call that called the listener.
    ///
    /// # Concurrency
    ///
    /// The thread that unlinked the entry calls the listener, without a lock held, before its own
    /// call returns. If that call was made by a listener or a destructor, it may be the outermost
    /// call of the thread that does so. The listener may use the cache.
    pub fn on_removal(mut self, listener: impl Fn(&K, &V, Cause) + Send + Sync + 'static) -> Self {
        self.listener = Some(Box::new(listener));
        self
    }

    /// Expires an entry `ttl` after it was inserted or its value last replaced.
    ///
    /// An expired entry is a miss immediately; later operations free expired entries a few at a
    /// time. Deadlines are exact to about a millisecond; on Linux, a TTL of 17 seconds or more may
    /// end early by a timer interrupt of the kernel, 10 milliseconds at most.
    ///
    /// Expiration settings cost 16 bytes per entry (40 where hits extend deadlines or values are
    /// reloaded), and one reading of the clock per call.
    pub fn time_to_live(mut self, ttl: Duration) -> Self {
        self.time.time_to_live = Some(nanos(ttl));
        self
    }

    /// Expires an entry `tti` after it was last inserted, replaced or found by a lookup.
    ///
    /// With an [`Expiry`] as well, the earlier deadline counts, also after a read. By default
    /// [`Expiry::after_read`] returns the remaining TTL, which a hit then cannot extend: to let
    /// hits extend the deadline, return `None` or a longer duration from it.
    pub fn time_to_idle(mut self, tti: Duration) -> Self {
        self.time.time_to_idle = Some(nanos(tti));
        self
    }

    /// Sets the [`Expiry`] that computes each entry's deadline. With other expiration settings, the
    /// earliest deadline counts.
    pub fn expiry(mut self, expiry: impl Expiry<K, V> + 'static) -> Self {
        self.time.expiry = Some(Box::new(expiry));
        self
    }

    /// Shortens each TTL by a random part of it, of at most `fraction`, so that entries that were
    /// loaded together do not expire together. `fraction` is at least 0 and less than 1.
    pub fn jitter(mut self, fraction: f64) -> Self {
        self.jitter = fraction;
        self
    }

    /// Reloads a value once it is older than `age` (refresh-ahead, or stale-while-revalidate).
    ///
    /// The first loading call (`get_or_insert_with` and its variants) to find the value due runs
    /// its loader; concurrent callers get the old value. The reloading call waits for its loader,
    /// unless it is [`get_or_refresh_with`](Cache::get_or_refresh_with) and the cache has a
    /// [`refresh_executor`](Self::refresh_executor). If the reload fails, or its future is dropped,
    /// the old value stays, and the value is due again after a quarter of `age`.
    ///
    /// Use it with a longer [`time_to_live`](Self::time_to_live): once an entry has expired, all
    /// callers wait for the loader.
    pub fn refresh_after(mut self, age: Duration) -> Self {
        self.time.refresh_after = Some(nanos(age));
        self
    }

    /// Keeps the old value for at least `grace` after a failed reload, beyond its TTL if necessary
    /// (stale-if-error). Use it with [`refresh_after`](Self::refresh_after).
    pub fn stale_if_error(mut self, grace: Duration) -> Self {
        self.time.grace = nanos(grace);
        self
    }

    /// Caches a loader's error for `ttl` (negative caching): until it elapses, requests for the key
    /// return that error without running a loader.
    ///
    /// A request whose loader returns another type of error runs its loader. An insertion, removal
    /// or computation of the key discards the error. The cache keeps the errors of at most an
    /// eighth as many keys as its capacity, at least 16 and at most 16,384; the oldest is discarded
    /// first.
    pub fn negative_ttl(mut self, ttl: Duration) -> Self {
        self.negative_ttl = Some(ttl);
        self
    }

    /// Sets the function that runs reloads of [`get_or_refresh_with`](Cache::get_or_refresh_with),
    /// on a thread pool, for example, or on a runtime's blocking threads.
    ///
    /// If `run` panics or drops its task, that reload is abandoned: the caller gets the old value,
    /// and the value is due again after a quarter of [`refresh_after`](Self::refresh_after).
    ///
    /// # Examples
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
    ///     .refresh_executor(|task| drop(std::thread::spawn(task)))
    ///     .build()?;
    /// prices.get_or_refresh_with("tea", || 3.20); // waits for the first value only
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Concurrency
    ///
    /// The caller that finds a value due calls `run`, without a lock held.
    pub fn refresh_executor(mut self, run: impl Fn(RefreshTask) + Send + Sync + 'static) -> Self {
        self.background = Some(Box::new(run));
        self
    }

    /// Reads the time from `clock` instead of the system's monotonic clock. See [`Clock`].
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.time.clock = TimeSource::Custom(Arc::new(clock));
        self
    }

    /// Profiles the cache: it simulates itself at other sizes, so that
    /// [`advise`](Cache::advise) can tell which size is worth its memory.
    ///
    /// The simulations take a sample of the keys. A cache of some hundred entries is simulated
    /// whole, so that each of its lookups is simulated seven times. Larger caches pay less the
    /// larger they are. Without this setting, a hit or an insertion executes no instruction more
    /// with the default policy and neither a weigher nor an expiration; a hit in a cache with an
    /// expiration executes one more, and a miss four.
    ///
    /// # Examples
    ///
    /// See [`Cache::advise`].
    pub fn profile(mut self) -> Self {
        self.profile = true;
        self
    }

    /// Has the cache set its own capacity, within `bounds`, from its own advice. Implies
    /// [`profile`](Self::profile).
    ///
    /// The cache approaches the smallest capacity that gives `target` of the hits of a cache
    /// without a bound: 0.95 for 95% of them. Where those are not known (see
    /// [`Advice::unbounded`](crate::Advice::unbounded)), it compares with the largest size that it
    /// simulates. The capacity that [`max_entries`](Self::max_entries) or
    /// [`max_weight`](Self::max_weight) sets is the first one. The bounds have the same unit.
    ///
    /// A decision takes about ten lookups per entry of the capacity, and at least 4,000. The first
    /// one, and one after the cache has shrunk, takes four times as many, and one after it has
    /// grown twice as many: the first of them only fill the cache and its simulations. One
    /// decision changes the capacity to a quarter of it at least, and to eight times at most. What
    /// was counted before a decision counts half in the next.
    ///
    /// Insertions carry a decision out. The cache grows in one step; it shrinks by steps of a
    /// 256th, each by one insertion, whose thread calls the removal listener for the entries that
    /// leave. The last step also replaces the table, if a smaller one is enough.
    /// [`set_capacity`](Cache::set_capacity) still sets any capacity; the next decision starts from
    /// it.
    ///
    /// # Errors
    ///
    /// [`build`](Self::build) returns [`BuildError::Autosize`] if `bounds` are empty, begin at 0,
    /// or do not contain the first capacity, if their end is above 2^28 entries, or if `target` is
    /// not above 0 and at most 1.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), hotset::BuildError> {
    /// let builder = hotset::Cache::builder().max_entries(500);
    /// let cache = builder.autosize(100..=50_000, 0.95).build()?;
    /// for round in 0..200 {
    ///     for key in 0..2_000 {
    ///         cache.get_or_insert_with(key, || key * round);
    ///     }
    /// }
    /// assert!(cache.capacity() >= 1_900, "it has grown to hold the keys: {}", cache.capacity());
    /// # Ok(())
    /// # }
    /// ```
    pub fn autosize(mut self, bounds: RangeInclusive<u64>, target: f64) -> Self {
        self.autosize = Some((bounds, target));
        self.profile()
    }

    /// Builds the cache.
    ///
    /// # Errors
    ///
    /// A [`BuildError`] if a setting is missing or invalid, if two settings conflict, if there is
    /// no memory for the table, or if the operating system refuses a thread that a setting needs.
    pub fn build(mut self) -> Result<Cache<K, V, S>, BuildError> {
        let lives = [self.time.time_to_live, self.time.time_to_idle, self.time.refresh_after];
        if lives.contains(&Some(0))
            || self.negative_ttl == Some(Duration::ZERO)
            || self.ticker.as_ref().is_some_and(|ticker| ticker.setting.is_zero())
            || self
                .snapshot
                .as_ref()
                .is_some_and(|snapshot| snapshot.setting.every == Some(Duration::ZERO))
        {
            return Err(BuildError::ZeroDuration);
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
        if self.profile && !crate::profile::is_bound(capacity, self.weigher.is_some()) {
            return Err(BuildError::ProfileWithoutBound);
        }
        let autosize = match self.autosize {
            Some((bounds, target)) => Some(Autosize::new(bounds, target, capacity, self.weigher.is_some())?),
            None => None,
        };
        let settings = Settings {
            policy: self.policy,
            capacity,
            weighted: self.weigher.is_some(),
            listener: self.listener,
            pointee: self.pointee,
            time: self.time,
            profile: self.profile,
            autosize,
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
        let ticker = self.ticker.map(|ticker| ticker.start(&cache)).transpose()?;
        let auto_snapshot = self.snapshot.map(|snapshot| snapshot.start(&cache)).transpose()?;
        cache.attach_services(
            ticker,
            auto_snapshot,
            #[cfg(all(feature = "stats-file", unix))]
            self.name.map(|(name, register)| register(&cache, name)),
        );
        Ok(cache)
    }
}

impl<K, V, S> Builder<K, V, S>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: Send + Sync + 'static,
{
    /// Starts a thread, named `hotset-ticker`, that runs maintenance at intervals of `every`, so
    /// that expired entries are freed even while no other thread uses the cache.
    ///
    /// Removal listeners and destructors may then run on that thread; if one panics, the thread
    /// continues.
    ///
    /// # Concurrency
    ///
    /// The drop of the last handle to the cache stops the thread and waits for it, including
    /// listeners and destructors that it is running. So that drop must not happen under a lock that
    /// one of them takes. A drop on the thread itself, or on a ticker or saver of another cache,
    /// does not wait: then the thread drops the entries.
    pub fn ticker(mut self, every: Duration) -> Self {
        self.ticker = Some(StartSetting {
            setting: every,
            start: Cache::start_ticker,
        });
        self
    }
}

#[cfg(feature = "stats-file")]
#[cfg_attr(docsrs, doc(cfg(feature = "stats-file")))]
impl<K, V, S> Builder<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    /// Gives the cache a name, under which its figures are in the process's
    /// [stats file](crate::stats_file), if that is enabled.
    ///
    /// Any text is a name; the file holds its first 256 bytes. Several caches may have one name:
    /// readers sum their figures.
    ///
    /// If the environment variable `HOTSET_STATS` is set, and the file cannot be created, the first
    /// named cache of the process writes one warning to the standard error.
    ///
    /// # Examples
    ///
    /// See [`stats_file`](crate::stats_file).
    ///
    /// # Concurrency
    ///
    /// The drop of the last handle waits for a thread that is rewriting the file.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        #[cfg(unix)]
        {
            self.name = Some((name.into(), Cache::register));
        }
        #[cfg(not(unix))]
        {
            _ = (&mut self, name.into());
        }
        self
    }
}

#[cfg(all(feature = "stats-file", unix))]
impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    /// Puts the cache into the stats file until the last handle is dropped.
    fn register(&self, name: String) -> Registration {
        let (registration, failed) = register(name, self.0.clone(), false);
        if let Some(failed) = failed {
            eprintln!("hotset: HOTSET_STATS has no effect: {failed}");
        }
        registration
    }
}

#[cfg(feature = "snapshot")]
#[cfg_attr(docsrs, doc(cfg(feature = "snapshot")))]
impl<K, V, S> Builder<K, V, S>
where
    K: Hash + Eq + Codec + Send + Sync + 'static,
    V: Codec + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    /// Loads and saves a [snapshot](crate::snapshot) automatically, as configured by `auto`.
    ///
    /// # Examples
    ///
    /// See [`AutoSnapshot`].
    pub fn snapshot(mut self, auto: AutoSnapshot) -> Self {
        self.snapshot = Some(StartSetting {
            setting: auto,
            start: Cache::start_auto_snapshot,
        });
        self
    }
}

impl<K, V, S> Cache<K, V, S>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: Send + Sync + 'static,
{
    /// Starts the thread. It holds the cache only while it works.
    pub(crate) fn start_ticker(&self, interval: Duration) -> io::Result<Service> {
        let cache: Weak<Inner<K, V, S>> = Arc::downgrade(&self.0);
        Service::start(Kind::Ticker, interval, move || {
            let Some(inner) = cache.upgrade() else { return false };
            let continues = !inner.engine.is_poisoned();
            if continues {
                // A listener or a destructor that panics has been reported by the panic hook; the
                // work was done.
                _ = catch_unwind(AssertUnwindSafe(|| inner.engine.run_pending()));
            }
            _ = catch_unwind(AssertUnwindSafe(|| drop(inner)));
            continues
        })
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
