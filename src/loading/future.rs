//! Loaders that are futures.

use super::{infallible, shared};
use crate::cache::Cache;
use crate::error::LoadError;
use crate::expiry::Ttl;
use crate::flight::{ActorId, Role};
use std::convert::Infallible;
use std::hash::{BuildHasher, Hash};
use std::pin::{Pin, pin as pin_future};
use std::sync::Arc;

/// Needs the feature `async`. The futures run on any executor, and are `Send` if the loader is and keys and values may be
/// shared. They borrow the cache: move a handle into a task that must own what it uses.
impl<K: Hash + Eq, V, S: BuildHasher> Cache<K, V, S> {
    /// The key's value; if it is absent, awaits `load` and inserts what that brings. While one caller loads, be it a task or
    /// a thread in [`get_or_insert_with`](Self::get_or_insert_with), others that ask for the key wait for it: tasks await,
    /// threads block. `load` is dropped unpolled if it is not needed. Needs the feature `async`.
    ///
    /// If the key is inserted, removed or computed while it is being loaded, the loaded value is returned but does not enter
    /// the cache. `load` may use the cache.
    ///
    /// **Dropping the future** is always safe. If it was waiting, nobody else notices. If it was the one that loads, that
    /// counts as a failed load, and one of those who wait loads in its place, with its own `load`. The load goes only as far
    /// as its future is polled; to go on whatever becomes of the caller, it belongs in a task of its own.
    ///
    /// **Leaking the future** (`std::mem::forget`) while it loads leaves the load open for ever, and so does never polling
    /// it again: who asks for the key waits, until something is inserted for it. Other keys, and dropping the cache, are
    /// not affected.
    ///
    /// **Threads that wait block.** On an executor's thread, `get_or_insert_with` may wait for a task that only that thread
    /// would poll: use this instead.
    ///
    /// ```
    /// # fn block_on<T>(future: impl Future<Output = T>) -> T {
    /// #     let mut future = std::pin::pin!(future);
    /// #     let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    /// #     loop {
    /// #         if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
    /// #             return value;
    /// #         }
    /// #     }
    /// # }
    /// # block_on(async {
    /// let cache = hotset::Cache::new(100);
    /// let page = cache.get_or_insert_async("/index", async { "<html>" }).await;
    /// assert_eq!(cache.get("/index"), Some(page));
    /// # });
    /// ```
    ///
    /// # Panics
    /// If the key is asked for from inside its own loader; use
    /// [`try_get_or_insert_async`](Self::try_get_or_insert_async) to get that as an error, and to read what is not found.
    pub async fn get_or_insert_async(&self, key: K, load: impl Future<Output = V>) -> V
    where
        K: Clone,
        V: Clone,
    {
        let ended = |value| Ok::<_, Infallible>((value, Ttl::Default));
        let loaded = self.load_future(key, pin_future!(load), ended).await;
        loaded.unwrap_or_else(|error| infallible(error))
    }

    /// [`get_or_insert_async`](Self::get_or_insert_async) with a loader that also says how long its value lives. Needs the
    /// feature `async`.
    ///
    /// # Panics
    /// If the key is asked for from inside its own loader.
    pub async fn get_or_insert_async_ttl(&self, key: K, load: impl Future<Output = (V, Ttl)>) -> V
    where
        K: Clone,
        V: Clone,
    {
        let loaded = self.load_future(key, pin_future!(load), Ok::<_, Infallible>).await;
        loaded.unwrap_or_else(|error| infallible(error))
    }

    /// Like [`get_or_insert_async`](Self::get_or_insert_async), for loaders that may fail. An error is not cached; the
    /// callers that waited for the failed load share it, if they expect an error of the same type (others load themselves).
    /// Needs the feature `async`.
    ///
    /// [`LoadError::Reentrant`] is returned where waiting is known to be endless: if this future is polled from inside the
    /// key's own loader (an executor that a loader runs is inside of it with all its tasks), or if a thread that is blocked
    /// waits for that. A ring that goes through a task which awaits another's load is not found, as the task might do
    /// something else meanwhile; nor is one through a task that the loader spawns. Its members wait until one is dropped.
    pub async fn try_get_or_insert_async<E>(
        &self,
        key: K,
        load: impl Future<Output = Result<V, E>>,
    ) -> Result<V, LoadError<E>>
    where
        K: Clone,
        V: Clone,
        E: Send + Sync + 'static,
    {
        let ended = |loaded: Result<V, E>| Ok((loaded?, Ttl::Default));
        self.load_future(key, pin_future!(load), ended).await
    }

    /// [`try_get_or_insert_async`](Self::try_get_or_insert_async) with a loader that also says how long its value lives.
    /// Needs the feature `async`.
    pub async fn try_get_or_insert_async_ttl<E>(
        &self,
        key: K,
        load: impl Future<Output = Result<(V, Ttl), E>>,
    ) -> Result<V, LoadError<E>>
    where
        K: Clone,
        V: Clone,
        E: Send + Sync + 'static,
    {
        self.load_future(key, pin_future!(load), |loaded| loaded).await
    }

    /// By a reference, and with `end` for what is made of its output: each wrapping of `load` in another future would
    /// double the size of what the caller gets.
    async fn load_future<F: Future, E>(
        &self,
        key: K,
        load: Pin<&mut F>,
        end: impl FnOnce(F::Output) -> Result<(V, Ttl), E>,
    ) -> Result<V, LoadError<E>>
    where
        K: Clone,
        V: Clone,
        E: Send + Sync + 'static,
    {
        let hash = self.0.hash(&key);
        match self.look(hash, &key) {
            Some((old, true)) => return Ok(self.reload_future(hash, key, old, load, end).await),
            Some((value, false)) => return Ok(value),
            None => {}
        }
        self.failed(hash, &key)?;
        let actor = ActorId::future();
        loop {
            match self.join(hash, &key, actor) {
                Role::Lead { mut leader, recheck } => {
                    if let Some(value) = self.recheck_map(recheck, hash, &key, self.0.engine.pin(), &mut leader) {
                        return Ok(value);
                    }
                    let loaded = leader.run_future(actor, load, end).await.map_err(Arc::new);
                    // The weigher and others run while the flight is still open: to them, too, the key is being loaded.
                    let _polled = actor.polled();
                    return self.lead(hash, key, &mut leader, loaded, |key, _| key);
                }
                Role::Wait(flight) => {
                    if let Some(result) = shared(flight.landed()?.await) {
                        return result;
                    }
                }
            }
        }
    }

    /// The key's value, and whether it is for this caller to reload it.
    fn look(&self, hash: u64, key: &K) -> Option<(V, bool)>
    where
        V: Clone,
    {
        let now = self.0.engine.now_and_expire();
        let guard = self.0.engine.pin();
        let entry = self.0.lookup(key, hash, &guard)?;
        let value = entry.value.clone();
        Some((value, self.0.engine.claim_reload(entry, now, &guard)))
    }
}
