//! Reloading before a value is too old: one caller sees to it, the others are served what is there.

use crate::cache::{Cache, Inner};
use crate::error::LoadError;
use crate::expiry::Ttl;
use crate::flight::{ActorId, Joined, Leader, Outcome};
use crate::key::LoadKey;
use crate::loading::{Found, Freshness, Loaded, infallible};
use crate::prim::panics::Panics;
use std::borrow::Borrow;
use std::convert::Infallible;
use std::hash::{BuildHasher, Hash};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
#[cfg(feature = "async")]
use std::pin::Pin;
use std::sync::Arc;

/// A reload, for a thread of the user's choice. To be called once; if it is dropped instead, a later caller tries again.
pub type RefreshTask = Box<dyn FnOnce() + Send>;

/// Hands tasks to wherever the user wants them to run.
pub(crate) type Runner = Box<dyn Fn(RefreshTask) + Send + Sync>;

/// The value that was in the cache, of a call whose reload failed.
fn stale<V>(value: V) -> Loaded<V> {
    Loaded {
        value,
        freshness: Freshness::Stale,
    }
}

/// The right and the duty to reload a key. If nothing comes of it, the entry is soon due again.
struct Reload<K: Hash + Eq, V, S: BuildHasher> {
    cache: Cache<K, V, S>,
    hash: u64,
    key: K,
    /// The entry has been replaced, or is due again.
    done: bool,
}

impl<K: Hash + Eq, V, S: BuildHasher> Drop for Reload<K, V, S> {
    fn drop(&mut self) {
        // Maybe a loader's panic is going on: another one must not meet it.
        let mut panics = Panics::default();
        panics.catch(|| self.give_up());
        panics.resume();
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Reload<K, V, S> {
    /// If the entry has not been replaced, it is soon due again.
    fn give_up(&mut self) {
        if !mem::replace(&mut self.done, true) {
            let inner = &self.cache.0;
            let time = inner.engine.time();
            let (guard, now) = (inner.engine.pin(), inner.engine.now());
            let found = inner.peek_alive(self.hash, &self.key, now, &guard);
            if let Some(timing) = found.and_then(|found| inner.engine.timing(found, &guard)) {
                timing.unclaim_reload(now.saturating_add(time.retry()));
            }
        }
    }

    /// Loads, and replaces the entry, unless it is changed meanwhile. Returns the new value, or the old one if that is not
    /// to be had.
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
        // Not left to the destructor: if user code panics there, the compiler forgets the value (rust-lang/rust#47949).
        self.give_up();
        value
    }

    /// Begins a flight; `None` if the key is being loaded, since it was removed or had ended.
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
                    // Its time may have ended while the source was waited for in vain: then it lives again.
                    let (guard, now) = (inner.engine.pin(), inner.engine.now());
                    let found = inner.peek(self.hash, &self.key, &guard);
                    if let Some(timing) = found.and_then(|found| inner.engine.timing(found, &guard)) {
                        timing.extend(now.saturating_add(grace));
                    }
                }
                // Who waits has found the entry ended or removed meanwhile.
                let error = Arc::new(error);
                leader.complete(|| Outcome::Failed(error));
                stale(old)
            }
        }
    }
}

#[cfg(feature = "async")]
impl<K: Hash + Eq, V, S: BuildHasher> Reload<K, V, S> {
    /// [`run`](Self::run) with a loader that is a future. If this is dropped meanwhile, the entry is soon due again.
    async fn run_future<F: Future, E>(
        mut self,
        old: V,
        load: Pin<&mut F>,
        end: impl FnOnce(F::Output) -> Result<(V, Ttl), E>,
    ) -> Loaded<V>
    where
        K: Clone,
        V: Clone,
        E: Send + Sync + 'static,
    {
        let (cache, actor) = (self.cache.clone(), ActorId::new_future());
        let value = match self.lead(&cache, actor) {
            Some(mut leader) => {
                let loaded = leader.run_future(actor, load, end).await;
                let _polled = actor.enter_poll();
                self.end(&cache.0, &mut leader, old, loaded)
            }
            None => stale(old),
        };
        self.give_up(); // as in `run`
        value
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Cache<K, V, S> {
    /// Reloads a key whose entry was claimed for that, in this call.
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

    /// [`reload`](Self::reload) with a loader that is a future.
    #[cfg(feature = "async")]
    pub(crate) async fn reload_future<F: Future, E>(
        &self,
        hash: u64,
        key: K,
        old: V,
        load: Pin<&mut F>,
        end: impl FnOnce(F::Output) -> Result<(V, Ttl), E>,
    ) -> Loaded<V>
    where
        K: Clone,
        V: Clone,
        E: Send + Sync + 'static,
    {
        self.reload_of(hash, key).run_future(old, load, end).await
    }

    fn reload_of(&self, hash: u64, key: K) -> Reload<K, V, S> {
        Reload {
            cache: self.clone(),
            hash,
            key,
            done: false,
        }
    }

    /// Like [`get_or_insert_with`](Self::get_or_insert_with), with a loader that may run elsewhere: if the key's value is due
    /// for a reload (see [`refresh_after`](crate::Builder::refresh_after)) and the cache has a
    /// [`refresh_executor`](crate::Builder::refresh_executor), the reload is handed there, and this call returns the old value at once.
    ///
    /// # Panics
    /// If the key is missing, and asked for from inside its own loader.
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

    /// [`get_or_refresh_with`](Self::get_or_refresh_with) for loaders that may fail: a reload that fails is counted, the old
    /// value stays, and the reload is tried again a quarter of the refresh time later.
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
            // The panic hook has reported what panics here. The call has its value, and the task has been dropped.
            _ = catch_unwind(AssertUnwindSafe(|| background(task)));
        }
        Ok(value)
    }
}
