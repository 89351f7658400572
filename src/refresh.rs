//! Reloads of values before they expire: one caller reloads, the others get the old value.
//!
//! The call that finds an entry due claims its reload in the entry's timing ([`Cache::reload`]), so
//! no second call finds it due. A [`Reload`] is that claim. It ends in one of two ways: the entry
//! is replaced, or the claim is given back and the entry is due again after a quarter of the
//! refresh age. A reload is also a flight of its key: an insertion or a removal invalidates it as
//! it does any load.

use crate::cache::{Cache, Inner};
use crate::error::LoadError;
use crate::expiry::Ttl;
use crate::flight::{ActorId, Joined, Leader, Outcome};
use crate::key::LoadKey;
use crate::loading::{Found, Freshness, Loaded, infallible};
use crate::prim::panics::Panics;
use crate::settings::RefreshTask;
use std::borrow::Borrow;
use std::convert::Infallible;
use std::hash::{BuildHasher, Hash};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
#[cfg(feature = "async")]
use std::pin::Pin;
use std::sync::Arc;

/// Returns the old value, for a call whose reload failed.
fn stale<V>(value: V) -> Loaded<V> {
    Loaded {
        value,
        freshness: Freshness::Stale,
    }
}

/// A claimed reload of a key. If it is dropped before the entry was replaced, the claim is given
/// back.
pub(crate) struct Reload<K: Hash + Eq, V, S: BuildHasher> {
    cache: Cache<K, V, S>,
    hash: u64,
    key: K,
    /// The entry was replaced, or the claim was given back.
    done: bool,
}

impl<K: Hash + Eq, V, S: BuildHasher> Drop for Reload<K, V, S> {
    fn drop(&mut self) {
        // A loader's panic may be unwinding through this: a second panic would abort the process.
        let mut panics = Panics::default();
        panics.catch(|| self.give_up());
        panics.resume();
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Reload<K, V, S> {
    /// Gives the claim back, unless the entry was replaced.
    fn give_up(&mut self) {
        if !mem::replace(&mut self.done, true) {
            let inner = &self.cache.0;
            let time = inner.engine.time();
            let (guard, now) = (inner.engine.pin(), inner.engine.now());
            let found = inner.peek_alive(self.hash, &self.key, now, &guard);
            if let Some(timing) = found.and_then(|found| inner.engine.timing(found, &guard)) {
                timing.unclaim_reload(now.saturating_add(time.retry_delay()));
            }
        }
    }

    /// Loads, and replaces the entry unless it is changed during the load. Returns the new value,
    /// or `old` if the load fails or cannot begin.
    fn run<E>(mut self, old: V, load: impl FnOnce() -> Result<(V, Ttl), E>) -> Loaded<V>
    where
        K: Clone,
        V: Clone,
        E: Send + Sync + 'static,
    {
        let cache = self.cache.clone();
        let value = match self.lead(&cache, ActorId::this_thread()) {
            Some(mut leader) => {
                let loaded = leader.run(load);
                self.end(&cache.0, &mut leader, old, loaded)
            }
            None => stale(old),
        };
        // Not left to the destructor: if user code panics there, the compiler leaks the value
        // (rust-lang/rust#47949).
        self.give_up();
        value
    }

    /// Begins a flight. Returns `None` if another caller loads the key, because the entry was
    /// removed or expired after it was claimed.
    fn lead<'c>(&self, cache: &'c Cache<K, V, S>, actor: ActorId) -> Option<Leader<'c, K, V>>
    where
        K: Clone,
    {
        let key = self.key.clone();
        match cache.0.flights.join(self.hash, |other| *other == self.key, key, actor) {
            Joined::Lead { leader, .. } => Some(leader),
            Joined::Wait(_) => None,
        }
    }

    fn end<E>(
        &mut self,
        inner: &Inner<K, V, S>,
        leader: &mut Leader<'_, K, V>,
        old: V,
        loaded: Result<(V, Ttl), E>,
    ) -> Loaded<V>
    where
        K: Clone,
        V: Clone,
        E: Send + Sync + 'static,
    {
        match loaded {
            Ok((value, ttl)) => {
                let weight = inner.weigh(&self.key, &value);
                let contents = (self.key.clone(), value.clone());
                let guard = inner.engine.pin();
                let now = inner.engine.now_for(ttl);
                let timing = inner.times(self.hash, (&self.key, &value), ttl, now, &guard);
                inner.begin_load(self.hash, &self.key);
                let new = inner.engine.make(self.hash, contents, weight, timing, &guard);
                let leaving = leader.leave_on_drop();
                let invalidated = move || leaving.invalidated();
                self.done = inner
                    .engine
                    .insert_unless(self.hash, new, |a, b| a == b, invalidated, guard);
                leader.complete(|| Outcome::Loaded(value.clone()));
                Loaded {
                    value,
                    freshness: Freshness::Loaded,
                }
            }
            Err(error) => {
                let grace = inner.engine.time().grace;
                if grace > 0 {
                    // The entry may have expired during the failed load: this makes it alive again,
                    // hence `peek` and not `peek_alive`.
                    let (guard, now) = (inner.engine.pin(), inner.engine.now());
                    let found = inner.peek(self.hash, &self.key, &guard);
                    if let Some(timing) = found.and_then(|found| inner.engine.timing(found, &guard)) {
                        timing.extend_deadline(now.saturating_add(grace));
                    }
                }
                // Waiters are callers that found the entry expired or removed.
                let error = Arc::new(error);
                leader.complete(|| Outcome::Failed(error));
                stale(old)
            }
        }
    }
}

#[cfg(feature = "async")]
impl<K: Hash + Eq, V, S: BuildHasher> Reload<K, V, S> {
    /// Does what [`run`](Self::run) does, with a loader that is a future. If this future is dropped
    /// before it completes, the claim is given back.
    ///
    /// Not an `async fn`, whose future holds its arguments twice.
    #[expect(clippy::manual_async_fn)]
    pub(crate) fn run_future<F: Future, E>(
        mut self,
        old: V,
        load: Pin<&mut F>,
        end: impl FnOnce(F::Output) -> Result<(V, Ttl), E>,
    ) -> impl Future<Output = Loaded<V>>
    where
        K: Clone,
        V: Clone,
        E: Send + Sync + 'static,
    {
        async move {
            let (cache, actor) = (self.cache.clone(), ActorId::new_future());
            // No `match`, whose operand the future would hold while it waits.
            let Some(mut leader) = self.lead(&cache, actor) else {
                self.give_up(); // for the reason given in `run`
                return stale(old);
            };
            let loaded = leader.run_future(actor, load, end).await;
            let value = {
                let _polled = actor.enter_poll();
                self.end(&cache.0, &mut leader, old, loaded)
            };
            drop(leader);
            self.give_up(); // for the reason given in `run`
            value
        }
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Cache<K, V, S> {
    /// Reloads, in this call, a key whose reload the caller has claimed.
    #[cold]
    #[inline(never)]
    pub(crate) fn reload<E>(&self, hash: u64, key: K, old: V, load: impl FnOnce() -> Result<(V, Ttl), E>) -> Loaded<V>
    where
        K: Clone,
        V: Clone,
        E: Send + Sync + 'static,
    {
        let reload = self.reload_of(hash, key);
        reload.run(old, load)
    }

    /// Returns the claim that the caller has made on the key's entry.
    pub(crate) fn reload_of(&self, hash: u64, key: K) -> Reload<K, V, S> {
        Reload {
            cache: self.clone(),
            hash,
            key,
            done: false,
        }
    }

    /// Returns the value for `key`, calling `load` to compute and insert it if absent, and to
    /// reload it in the background if it is due.
    ///
    /// If the value is due ([`refresh_after`](crate::Builder::refresh_after)) and the cache has a
    /// [`refresh_executor`](crate::Builder::refresh_executor), the reload runs there, and this call
    /// returns the old value without waiting. Otherwise this is
    /// [`get_or_insert_with`](Self::get_or_insert_with).
    ///
    /// # Examples
    ///
    /// See [`refresh_executor`](crate::Builder::refresh_executor).
    ///
    /// # Panics
    ///
    /// If the key is absent and requested from inside its own loader. Use
    /// [`try_get_or_refresh_with`](Self::try_get_or_refresh_with) to get that as an error.
    ///
    /// # Concurrency
    ///
    /// `load` runs without a lock held, and may use the cache.
    pub fn get_or_refresh_with<T, F>(&self, key: T, load: impl FnOnce() -> V + Send + 'static) -> V
    where
        T: LoadKey<K, F>,
        K: Clone + Borrow<T::Borrowed> + Send + Sync + 'static,
        V: Clone + Send + Sync + 'static,
        S: Send + Sync + 'static,
    {
        let value = self.try_get_or_refresh_with(key, || Ok::<V, Infallible>(load()));
        value.unwrap_or_else(|error| infallible(error))
    }

    /// Returns the value for `key` like [`get_or_refresh_with`](Self::get_or_refresh_with), with a
    /// loader that may fail.
    ///
    /// A reload that fails is counted, the old value stays, and the value is due again after a
    /// quarter of the refresh age.
    ///
    /// # Errors
    ///
    /// [`LoadError::Failed`] if the key is absent and `load`, or another caller's load that this
    /// call waited for, fails; [`LoadError::Reentrant`] if the key is absent and requested from
    /// inside its own loader.
    pub fn try_get_or_refresh_with<T, F, E>(
        &self,
        key: T,
        load: impl FnOnce() -> Result<V, E> + Send + 'static,
    ) -> Result<V, LoadError<E>>
    where
        T: LoadKey<K, F>,
        K: Clone + Borrow<T::Borrowed> + Send + Sync + 'static,
        V: Clone + Send + Sync + 'static,
        S: Send + Sync + 'static,
        E: Send + Sync + 'static,
    {
        let load = || Ok((load()?, Ttl::Default));
        let Some(background) = &self.0.background else {
            return self.try_get_or_insert_with_ttl(key, load);
        };
        let hash = self.0.hash(key.as_borrowed());
        let (value, due) = match self.find(hash, key.as_borrowed()) {
            Found::Cached(value) => (value, false),
            Found::Due(value) => (value, true),
            Found::Missing(guard) => {
                let loaded = self.load_missing(hash, key.into_key(), guard, load, |key, _| key);
                return loaded.map(|loaded| loaded.value);
            }
        };
        if due {
            let (reload, old) = (self.reload_of(hash, key.into_key()), value.clone());
            let task: RefreshTask = Box::new(move || _ = reload.run(old, load));
            // A panic was reported by the panic hook, and dropped the task, which gave the claim
            // back. This call has its value.
            _ = catch_unwind(AssertUnwindSafe(|| background(task)));
        }
        Ok(value)
    }
}
