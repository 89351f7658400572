//! A cache in front of a second tier: a server that many processes share.
//!
//! A [`Tiered`] cache has its entries in this process (tier 1) and on a server (tier 2). A hit in
//! tier 1 costs a lookup. A miss asks the server, and a key that is missing there is loaded once
//! over all processes, under a lease. A removal or a write reaches tier 1 of every process: the
//! server announces it. `Redis` (feature `redis`) is such a server. `Memcached` servers (feature
//! `memcached`) announce nothing. Others implement [`Tier2`].
//! Caches of the Python package with the same prefix, name, codec and schema share the entries.
//!
//! # What is promised
//! - A value was returned by a loader, or confirmed by the server, at most `ttl` ago, and the stale
//!   graces that are set.
//! - After [`Tiered::remove`] or [`Tiered::set`] has returned, no read that begins in this process
//!   returns an older value, whether the server answered or not.
//! - A load that began before a removal was confirmed is never stored on the server.
//! - While the server announces changes, no process returns from tier 1 what was removed more than
//!   2.5 s before; otherwise `local_ttl` is the bound.
//! - While the server does not answer, values are loaded without it, and what was removed is
//!   removed on the server once it answers again, as long as this process lives.
//!
//! # Costs
//! Besides tier 1, a cache has one thread, a connection for announcements, and as many connections
//! as there are concurrent requests (64 of them are kept).
//!
//! # Forks
//! The child of a fork builds a cache of its own. In a child, an inherited one may return what tier
//! 1 had at the fork, for 2.5 s (without announcements: until `local_ttl`). Beyond that it neither
//! waits nor asks the server: reads find nothing, loaders are called, and nothing is stored.

mod background;
mod builder;
mod calls;
mod clock;
mod codec;
#[cfg(feature = "async")]
mod futures;
mod keys;
#[cfg(all(test, loom, feature = "async"))]
mod loom_tests;
mod many;
#[cfg(feature = "memcached")]
mod memcached;
#[cfg(feature = "async")]
mod pool;
#[cfg(feature = "redis")]
mod redis;
mod session;
mod steps;
#[cfg(all(test, not(loom)))]
mod tests;
mod transport;
mod values;
mod waiters;

pub use crate::expiry::Ttl;
pub use crate::tier2::MAX_TAGS;
pub use builder::{TieredBuilder, TieredError};
#[cfg(feature = "json")]
pub use codec::Json;
pub use codec::{Bytes, Codec, Schema};
pub use keys::{Name, TierKey};
#[cfg(feature = "memcached")]
#[cfg_attr(docsrs, doc(cfg(feature = "memcached")))]
pub use memcached::{AddressError, Memcached};
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use redis::Redis;
pub use transport::{
    Answer, Bus, Command, Connection, Failure, Greeting, Message, Tier2, Traits, execute_each, generation_tag,
    short_key,
};
pub use values::{Value, Values};

use crate::cache::Cache;
use crate::error::LoadError;
use crate::flight::{ActorId, Flight, Joined, Leader, Outcome};
use crate::loading::shared;
use crate::prim::sync;
use crate::stats::Stats;
use crate::tier2::{Action, Namespace, Operation};
use calls::{Loading, Marks, NoValue, Reading, Removing, Shared, Writing, is_no_value, nanos, needs_permit, ttl_nanos};
use clock::now;
use keys::{Names, quote_name};
use session::{Local, Session};
use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;
use steps::{LoadEnd, Steps};

/// A cache with entries in this process and on a server that processes share. See the
/// [module](self).
///
/// A clone is a handle to the same cache. When the last one is dropped, the cache replays what the
/// server has not confirmed, for as long as one command may take, and closes its connections.
///
/// # Examples
/// ```no_run
/// # #[cfg(feature = "redis")]
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use hotset::tiered::{Bytes, Redis, Tiered};
/// use std::time::Duration;
///
/// let redis = Redis::open("redis://localhost:6379/0")?;
/// let prices: Tiered<str, String> = Tiered::builder("shop", "prices", redis, Bytes)
///     .max_entries(10_000)
///     .ttl(Duration::from_secs(300))
///     .build()?;
/// let tea = prices.get_or_load("tea", || std::fs::read_to_string("tea.txt"))?;
/// prices.remove("tea"); // in every process
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "redis"))]
/// # fn main() {}
/// ```
pub struct Tiered<K: ?Sized, V>(Arc<Inner<V>>, PhantomData<fn(&K)>);

struct Inner<V> {
    cache: Cache<Name, V>,
    session: Arc<Session>,
    namespace: Namespace,
    names: Names,
    codec: Box<dyn Codec<V>>,
    max_value: usize,
    unsynced_ttl: Duration,
}

impl<K: ?Sized, V> Clone for Tiered<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<K: ?Sized, V> fmt::Debug for Tiered<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stem = String::from_utf8_lossy(self.0.names.stem());
        f.debug_struct("Tiered").field("keys", &stem).finish_non_exhaustive()
    }
}

impl<V> Drop for Inner<V> {
    fn drop(&mut self) {
        if !self.session.is_own() {
            // The threads are the parent's.
            return;
        }
        self.session.stop_threads();
    }
}

/// How a read begins.
enum Start<'a, V> {
    /// Another caller has just read the value.
    Value(V),
    /// This caller reads.
    Lead(Leader<'a, Name, V>),
    /// Another caller reads.
    Wait(sync::Arc<Flight<Name, V>>),
}

/// Tier 1, as announcements change it.
struct FirstTier<V>(Cache<Name, V>);

impl<V: Clone + Send + Sync> Local for FirstTier<V> {
    fn remove(&self, name: &[u8]) {
        self.0.invalidate(name);
    }

    fn clear(&self) {
        self.0.clear();
    }

    fn invalidate_loads(&self) {
        // The removal kills what a load is about to insert.
        self.0.0.flights.invalidate_all(|_, name| _ = self.0.invalidate(name));
    }
}

/// Statistics of a [`Tiered`] cache.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TieredStats {
    /// The statistics of tier 1.
    pub tier1: Stats,
    /// Counters of the second tier's operations, by name.
    pub tier2: Vec<(&'static str, u64)>,
    /// Counters of what happened between this process and the server, by name.
    pub server: Vec<(&'static str, u64)>,
    /// "unknown", "up", "replaying" or "down"; of several servers, the worst.
    pub link: &'static str,
    /// Whether the server's announcements are known to arrive: "armed". Otherwise "none", "lost" or
    /// "unsynced". Of several servers, the worst.
    pub bus: &'static str,
    /// The same of each server: link, and bus. A server without keys is "idle".
    pub servers: Vec<(&'static str, &'static str)>,
    /// The number of keys whose change the server has not confirmed.
    pub unconfirmed: usize,
    /// The number of entries in tier 1.
    pub entries: u64,
}

impl TieredStats {
    /// Returns the counter of the second tier, or of the server, with this name; 0 if there is
    /// none.
    pub fn counter(&self, name: &str) -> u64 {
        let mut all = self.tier2.iter().chain(&self.server);
        all.find(|(counter, _)| *counter == name).map_or(0, |(_, count)| *count)
    }
}

impl<K: TierKey + ?Sized, V: Clone + Send + Sync + 'static> Tiered<K, V> {
    /// Returns a builder of a cache.
    ///
    /// `prefix` begins all keys of all caches that share a server; `name` distinguishes this cache
    /// from others. Programs that share the entries have the same prefix, name, codec and schema.
    pub fn builder(
        prefix: impl Into<String>,
        name: impl Into<String>,
        tier2: impl Tier2,
        codec: impl Codec<V>,
    ) -> TieredBuilder<K, V> {
        TieredBuilder::new(prefix.into(), name.into(), Arc::new(tier2), Box::new(codec))
    }

    /// Returns the value of `key`, from tier 1 or from the server.
    ///
    /// # Complexity
    /// A lookup in tier 1; after a miss, one request to the server, of at most the timeout that is
    /// set.
    pub fn get(&self, key: &K) -> Option<V> {
        let found = self.find(key, None::<fn() -> Result<(V, Ttl), NoValue>>, &[]);
        found.unwrap_or_default()
    }

    /// Returns the value of `key`. If it is in neither tier, `load` returns it, which is called by
    /// one caller over all processes; the others wait for it.
    ///
    /// If the server does not answer, `load` is called without a lease: once per process.
    ///
    /// # Errors
    /// [`LoadError::Failed`] with the error of `load`, this caller's or that of another one that
    /// this call waited for; [`LoadError::Reentrant`] if the key is requested inside its loader.
    ///
    /// # Panics
    /// If `load` or the codec panics. Other callers load by themselves then.
    pub fn get_or_load<E: Send + Sync + 'static>(
        &self,
        key: &K,
        load: impl FnOnce() -> Result<V, E>,
    ) -> Result<V, LoadError<E>> {
        self.get_or_load_tagged(key, &[], || load().map(|value| (value, Ttl::Default)))
    }

    /// Behaves like [`get_or_load`](Self::get_or_load), with a loader that returns how long the
    /// value is fresh, and with tags of the loaded value (see
    /// [`invalidate_tag`](Self::invalidate_tag)).
    ///
    /// # Errors
    /// As [`get_or_load`](Self::get_or_load).
    ///
    /// # Panics
    /// If `load` or the codec panics; if there are more than 16 tags, or one is longer than 255
    /// bytes on the server.
    pub fn get_or_load_tagged<E: Send + Sync + 'static>(
        &self,
        key: &K,
        tags: &[&str],
        load: impl FnOnce() -> Result<(V, Ttl), E>,
    ) -> Result<V, LoadError<E>> {
        let found = self.find(key, Some(load), tags)?;
        Ok(found.expect("a read with a loader ends with a value or an error"))
    }

    /// Sets the value of `key` on the server, then in tier 1. Other processes drop theirs.
    ///
    /// Returns whether the server confirmed it. Otherwise the key is removed everywhere once the
    /// server answers: the value is nowhere, and is loaded when it is needed next.
    pub fn set(&self, key: &K, value: V) -> bool {
        self.set_tagged(key, value, Ttl::Default, &[])
    }

    /// Behaves like [`set`](Self::set), with the time for which the value is fresh, and with tags.
    ///
    /// # Panics
    /// If there are more than 16 tags, or one is longer than 255 bytes on the server.
    pub fn set_tagged(&self, key: &K, value: V, ttl: Ttl, tags: &[&str]) -> bool {
        let inner = &*self.0;
        if !inner.session.is_own() {
            return false;
        }
        let (name, full_key) = self.name_of(key);
        let shared = self.shared(&name, full_key.as_deref());
        let (payload, whole) = shared.encode(&value);
        if !whole {
            // Tier 2 must not have the old value.
            let confirmed = self.operate(
                &name,
                inner.namespace.remove(name.as_bytes(), self.server_of(&name), now()),
            );
            if confirmed {
                self.keep_local(name, value, ttl);
            }
            return false;
        }
        let tags = tag_names(tags);
        let operation = inner.namespace.write(
            name.as_bytes(),
            self.server_of(&name),
            now(),
            ttl_nanos(ttl),
            &borrowed(&tags),
        );
        let call = Writing {
            shared,
            marks: self.marks(&name, ActorId::this_thread()),
            payload,
        };
        let mut steps = Steps::new(operation, call);
        let end = steps.run(&inner.session, no_load);
        let (call, operation) = steps.into_parts();
        call.end(end, &operation, &value)
    }

    /// Removes `key` from both tiers, in all processes. Returns whether the server confirmed it;
    /// otherwise the removal is repeated until it does.
    pub fn remove(&self, key: &K) -> bool {
        self.with_name(key, |name, server| {
            self.0.namespace.remove(name.as_bytes(), server, now())
        })
    }

    /// Expires the value of `key` in all processes: it may be returned stale, within the graces
    /// that are set, while it is loaded anew. Returns whether the server confirmed it.
    pub fn expire(&self, key: &K) -> bool {
        self.with_name(key, |name, server| {
            self.0.namespace.expire(name.as_bytes(), server, now())
        })
    }

    /// Gives the value of `key` on the server a new time to live, counted from now. Returns whether
    /// there was a value, and the server confirmed it.
    pub fn touch(&self, key: &K, ttl: Ttl) -> bool {
        let inner = &*self.0;
        if !inner.session.is_own() {
            return false;
        }
        let (name, _) = self.name_of(key);
        let server = self.server_of(&name);
        let operation = inner.namespace.touch(name.as_bytes(), server, now(), ttl_nanos(ttl));
        let call = Removing {
            cache: &inner.cache,
            name: Some(&name),
        };
        let mut steps = Steps::new(operation, call);
        let end = steps.run(&inner.session, no_load);
        end == Action::Done && steps.into_parts().1.is_stored()
    }

    /// Invalidates all entries, in all processes. Returns whether the server confirmed it.
    ///
    /// # Complexity
    /// One request. The entries on the server are left to their ttl.
    pub fn clear(&self) -> bool {
        self.bump(None)
    }

    /// Invalidates all entries with this tag, in all processes. Returns whether the server
    /// confirmed it. Tier 1 is cleared whole.
    ///
    /// # Panics
    /// If the tag is longer than 255 bytes on the server.
    pub fn invalidate_tag(&self, tag: &str) -> bool {
        self.bump(Some(tag))
    }

    /// Returns the key that the value of `key` has on the server: in a transport of the program's
    /// own, or for [`changed`](Self::changed).
    pub fn name(&self, key: &K) -> Name {
        self.name_of(key).0
    }

    /// Learns that another process changed what the server has under this key (see
    /// [`name`](Self::name)): tier 1 drops it. For programs that announce changes to each other by
    /// means of their own, where the server does not. Such an announcement may be lost or late:
    /// `local_ttl` stays the bound.
    pub fn changed(&self, name: &[u8]) {
        if self.0.session.is_own() {
            self.0.session.changed(name);
        }
    }

    /// Learns that all keys may have changed, as [`changed`](Self::changed) does of one: tier 1 is
    /// cleared.
    pub fn all_changed(&self) {
        if self.0.session.is_own() {
            self.0.session.all_changed();
        }
    }

    /// Returns the statistics.
    pub fn stats(&self) -> TieredStats {
        let inner = &*self.0;
        let (mut tier2, mut server) = (Vec::new(), Vec::new());
        inner
            .namespace
            .stats()
            .for_each(|name, count| tier2.push((name, count)));
        inner
            .session
            .tier
            .stats()
            .for_each(|name, count| server.push((name, count)));
        server.extend(inner.session.transport.counters());
        let reports = inner.session.tier.nodes(now());
        let servers: Vec<_> = reports.iter().map(|one| (one.link, one.bus)).collect();
        let serving = || servers.iter().filter(|(link, _)| *link != "idle");
        let worst = |order: &[&'static str], state: &dyn Fn(&(&'static str, &'static str)) -> &'static str| {
            let found = order.iter().find(|one| serving().any(|server| state(server) == **one));
            found.copied()
        };
        let link = worst(&["down", "replaying", "unknown", "up"], &|server| server.0);
        let bus = worst(&["unsynced", "lost", "armed", "none"], &|server| server.1);
        TieredStats {
            tier1: inner.cache.stats(),
            tier2,
            server,
            link: link.unwrap_or("unknown"),
            bus: bus.unwrap_or("none"),
            servers,
            unconfirmed: inner.session.tier.journal_len(),
            entries: inner.cache.len() as u64,
        }
    }

    fn hash(&self, name: &Name) -> u64 {
        self.0.cache.0.hash::<Name>(name)
    }

    fn name_of(&self, key: &K) -> (Name, Option<Vec<u8>>) {
        let mut text = String::with_capacity(96);
        let full_key = self.0.names.write(key, &mut text);
        (Name::from(text.as_bytes()), full_key)
    }

    /// Stores a value in tier 1 that is too large for the server.
    fn keep_local(&self, name: Name, value: V, ttl: Ttl) {
        let bound = self.0.unsynced_ttl;
        let ttl = match ttl_nanos(ttl) {
            0 => bound,
            ttl => Duration::from_nanos(ttl).min(bound),
        };
        self.0.cache.insert_with_ttl(name, value, Ttl::After(ttl));
    }

    fn server_of(&self, name: &Name) -> u32 {
        self.0.session.server_of(name.as_bytes())
    }

    fn shared<'a>(&'a self, name: &'a Name, full_key: Option<&'a [u8]>) -> Shared<'a, V> {
        Shared {
            cache: &self.0.cache,
            codec: &*self.0.codec,
            max_value: self.0.max_value,
            name,
            full_key,
        }
    }

    /// Returns the value in tier 1, if that may be believed.
    fn hit(&self, name: &[u8]) -> Option<V> {
        // Before the lookup: what is found after an invalidation arrived is newer than that.
        let trusted = now() <= self.0.session.tier.trust().hits_until();
        if trusted { self.0.cache.get(name) } else { None }
    }

    fn find<E, F>(&self, key: &K, load: Option<F>, tags: &[&str]) -> Result<Option<V>, LoadError<E>>
    where
        E: Send + Sync + 'static,
        F: FnOnce() -> Result<(V, Ttl), E>,
    {
        let mut text = String::with_capacity(96);
        let full_key = self.0.names.write(key, &mut text);
        if let Some(value) = self.hit(text.as_bytes()) {
            return Ok(Some(value));
        }
        let inner = &*self.0;
        if !inner.session.is_own() {
            return load.map_or(Ok(None), |load| match load() {
                Ok((value, _)) => Ok(Some(value)),
                Err(error) => Err(LoadError::Failed(error.into())),
            });
        }
        let name = Name::from(text.as_bytes());
        if load.is_some() && calls::is_loading(&inner.session, &name) {
            return Err(LoadError::Reentrant);
        }
        let actor = ActorId::this_thread();
        let leader = loop {
            match self.start(&name, actor) {
                Start::Value(value) => return Ok(Some(value)),
                Start::Lead(leader) => break leader,
                Start::Wait(flight) => {
                    let outcome = flight.wait()?;
                    if load.is_none() && is_no_value(outcome) {
                        return Ok(None);
                    }
                    if let Some(result) = shared::<V, E>(outcome) {
                        return result.map(Some);
                    }
                    if let Some(value) = self.hit(name.as_bytes()) {
                        return Ok(Some(value));
                    }
                }
            }
        };
        let mut steps = self.reading::<E>(&name, full_key.as_deref(), actor, leader, load.is_some(), tags);
        let mut load = load;
        let end = steps.run(&inner.session, |call, is_limited| {
            let Some(load) = load.take() else {
                // The core has one load per operation.
                return LoadEnd::Failed;
            };
            let permit = (is_limited && needs_permit(&inner.session)).then(|| inner.session.loads.begin());
            let loading = Loading::new(&inner.session, &name, is_limited);
            let loaded = catch_unwind(AssertUnwindSafe(load));
            drop((loading, permit));
            call.loaded(loaded.map(|loaded| loaded.map_err(Arc::new)))
        });
        let (call, operation) = steps.into_parts();
        call.end(end, &operation).map_err(LoadError::Failed)
    }

    /// Begins to read a key: finds that another caller has just read it, or joins its read.
    fn start(&self, name: &Name, actor: ActorId) -> Start<'_, V> {
        let cache = &self.0.cache;
        if now() > self.0.session.tier.trust().joins_until() {
            // A load in flight may be older than what may be returned.
            cache.invalidate::<Name>(name);
        }
        let equal = |other: &Name| other == name;
        match cache.0.flights.join(self.hash(name), equal, name.clone(), actor) {
            Joined::Lead { mut leader, recheck } => match recheck.then(|| self.hit(name.as_bytes())).flatten() {
                Some(value) => {
                    leader.complete(|| Outcome::Loaded(value.clone()));
                    Start::Value(value)
                }
                None => Start::Lead(leader),
            },
            Joined::Wait(flight) => Start::Wait(flight),
        }
    }

    fn marks<'a>(&'a self, name: &'a Name, actor: ActorId) -> Marks<'a, V> {
        Marks::new(&self.0.cache, name, self.hash(name), actor)
    }

    /// Begins the read that `leader` leads.
    fn reading<'a, E>(
        &'a self,
        name: &'a Name,
        full_key: Option<&'a [u8]>,
        actor: ActorId,
        leader: Leader<'a, Name, V>,
        can_load: bool,
        tags: &[&str],
    ) -> Steps<Reading<'a, V, E>> {
        let mut marks = self.marks(name, actor);
        marks.push(leader);
        let tags = tag_names(tags);
        let operation = self
            .0
            .namespace
            .read(name.as_bytes(), self.server_of(name), now(), can_load, &borrowed(&tags));
        let call = Reading::new(self.shared(name, full_key), marks, can_load);
        Steps::new(operation, call)
    }

    fn with_name(&self, key: &K, begin: impl FnOnce(&Name, u32) -> Operation) -> bool {
        if !self.0.session.is_own() {
            return false;
        }
        let (name, _) = self.name_of(key);
        self.operate(&name, begin(&name, self.server_of(&name)))
    }

    fn operate(&self, name: &Name, operation: Operation) -> bool {
        let call = Removing {
            cache: &self.0.cache,
            name: Some(name),
        };
        let end = Steps::new(operation, call).run(&self.0.session, no_load);
        self.0.session.waiters.wake(name.as_bytes());
        end == Action::Done
    }

    fn bump(&self, tag: Option<&str>) -> bool {
        let inner = &*self.0;
        if !inner.session.is_own() {
            return false;
        }
        let tag = tag.map(quote_name);
        let tag = tag.as_ref().map(|tag| tag.as_bytes());
        let is_fixed = inner.session.transport.traits().is_fixed;
        let begin = |(group, key): (usize, &Vec<u8>)| {
            let server = if is_fixed {
                group as u32
            } else {
                inner.session.server_of(key)
            };
            let operation = inner.namespace.bump(tag, group as u32, server, now());
            let call = Removing {
                cache: &inner.cache,
                name: None,
            };
            Steps::new(operation, call)
        };
        let mut all: Vec<_> = inner
            .session
            .settings
            .generations
            .iter()
            .enumerate()
            .map(begin)
            .collect();
        let ends = steps::run_all(&inner.session, &mut all, |_, _, _| {});
        inner.session.waiters.wake_all();
        ends.iter().all(|end| *end == Action::Done)
    }
}

/// The loader of operations that have none.
fn no_load<C>(_: &mut C, _: bool) -> LoadEnd {
    LoadEnd::Failed
}

/// Returns whether a tag is not too long: at most 255 bytes on the server, where bytes other than
/// ASCII letters, digits and `_.-~/@+` take three.
pub fn is_tag(tag: &str) -> bool {
    quote_name(tag).len() <= 255
}

fn tag_names(tags: &[&str]) -> Vec<String> {
    tags.iter().map(|tag| quote_name(tag)).collect()
}

fn borrowed(tags: &[String]) -> Vec<&[u8]> {
    tags.iter().map(|tag| tag.as_bytes()).collect()
}
