//! Loaders that are futures.

use super::{infallible, shared};
use crate::cache::Cache;
use crate::error::LoadError;
use crate::expiry::Ttl;
use crate::flight::{ActorId, Joined};
use crate::key::LoadKey;
use std::borrow::Borrow;
use std::convert::Infallible;
use std::hash::{BuildHasher, Hash};
use std::pin::{Pin, pin as pin_future};
use std::sync::Arc;

/// # Asynchronous loads
///
/// The futures run on any executor. They are `Send` if the loader is and keys and values may be
/// shared. They borrow the cache: clone a handle into a task that must own what it uses.
#[cfg_attr(docsrs, doc(cfg(feature = "async")))]
impl<K: Hash + Eq, V, S: BuildHasher> Cache<K, V, S> {
    /// Returns the value for `key`, awaiting `load` to compute and insert it if it is absent or
    /// expired.
    ///
    /// `key` is passed by value or by reference, see [`LoadKey`]. `load` is dropped unpolled if it
    /// is not needed. If the key is inserted, removed or computed during the load, the loaded value
    /// is returned and not inserted. `load` may use the cache.
    ///
    /// # Examples
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
    /// let cache = hotset::Cache::<String, &str>::new(100);
    /// let page = cache.get_or_insert_async("/index", async { "<html>" }).await;
    /// assert_eq!(cache.get("/index"), Some(page));
    /// # });
    /// ```
    ///
    /// # Panics
    ///
    /// If `key` is requested from inside its own loader.
    /// [`try_get_or_insert_async`](Self::try_get_or_insert_async) returns that as an error, and
    /// documents which deadlocks are not detected.
    ///
    /// # Concurrency
    ///
    /// One caller loads, a task here or a thread in
    /// [`get_or_insert_with`](Self::get_or_insert_with). Others that request the key wait for it:
    /// tasks await, threads block. On an executor's thread, `get_or_insert_with` may block for a
    /// task that only that thread would poll: use this method there.
    ///
    /// Dropping the future is always safe. If it was waiting, no other caller is affected. If it
    /// was loading, that counts as a failed load, and one of the waiting callers loads in its
    /// place, with its own `load`. A load progresses only while its future is polled: to continue
    /// independently of the caller, it belongs in a task of its own.
    ///
    /// Leaking the future (`std::mem::forget`) while it loads, or never polling it again, leaves
    /// the load in progress forever. Callers that request the key then wait until a value is
    /// inserted for it. Other keys are not affected, nor is dropping the cache.
    pub async fn get_or_insert_async<T, F>(&self, key: T, load: impl Future<Output = V>) -> V
    where
        T: LoadKey<K, F>,
        K: Clone + Borrow<T::Borrowed>,
        V: Clone,
    {
        let ended = |value| Ok::<_, Infallible>((value, Ttl::Default));
        let loaded = self.load_future(key, pin_future!(load), ended).await;
        loaded.unwrap_or_else(|error| infallible(error))
    }

    /// Returns the value for `key` as [`get_or_insert_async`](Self::get_or_insert_async) does, with
    /// a loader that also returns the value's [`Ttl`].
    ///
    /// # Panics
    ///
    /// If `key` is requested from inside its own loader.
    pub async fn get_or_insert_async_ttl<T, F>(&self, key: T, load: impl Future<Output = (V, Ttl)>) -> V
    where
        T: LoadKey<K, F>,
        K: Clone + Borrow<T::Borrowed>,
        V: Clone,
    {
        let loaded = self.load_future(key, pin_future!(load), Ok::<_, Infallible>).await;
        loaded.unwrap_or_else(|error| infallible(error))
    }

    /// Returns the value for `key` as [`get_or_insert_async`](Self::get_or_insert_async) does, with
    /// a loader that may fail.
    ///
    /// # Errors
    ///
    /// [`LoadError::Failed`] as for [`try_get_or_insert_with`](Self::try_get_or_insert_with).
    ///
    /// [`LoadError::Reentrant`] where waiting would be a deadlock: if this future is polled from
    /// inside the key's own loader (an executor that a loader runs is inside of it with all its
    /// tasks), or if a thread that is blocked waits for that. A deadlock through a task that awaits
    /// another's load is not detected, since that task might do something else first. Nor is one
    /// through a task that the loader spawns. Their callers wait until one of the futures is
    /// dropped.
    pub async fn try_get_or_insert_async<T, F, E>(
        &self,
        key: T,
        load: impl Future<Output = Result<V, E>>,
    ) -> Result<V, LoadError<E>>
    where
        T: LoadKey<K, F>,
        K: Clone + Borrow<T::Borrowed>,
        V: Clone,
        E: Send + Sync + 'static,
    {
        let ended = |loaded: Result<V, E>| Ok((loaded?, Ttl::Default));
        self.load_future(key, pin_future!(load), ended).await
    }

    /// Returns the value for `key` as [`try_get_or_insert_async`](Self::try_get_or_insert_async)
    /// does, with a loader that also returns the value's [`Ttl`].
    ///
    /// # Errors
    ///
    /// As [`try_get_or_insert_async`](Self::try_get_or_insert_async).
    pub async fn try_get_or_insert_async_ttl<T, F, E>(
        &self,
        key: T,
        load: impl Future<Output = Result<(V, Ttl), E>>,
    ) -> Result<V, LoadError<E>>
    where
        T: LoadKey<K, F>,
        K: Clone + Borrow<T::Borrowed>,
        V: Clone,
        E: Send + Sync + 'static,
    {
        self.load_future(key, pin_future!(load), |loaded| loaded).await
    }

    /// Loads by a future that is passed by reference, and whose output `end` converts: each
    /// wrapping of `load` in another future would double the size of the future that the caller
    /// gets.
    async fn load_future<T, M, F: Future, E>(
        &self,
        key: T,
        load: Pin<&mut F>,
        end: impl FnOnce(F::Output) -> Result<(V, Ttl), E>,
    ) -> Result<V, LoadError<E>>
    where
        T: LoadKey<K, M>,
        K: Clone + Borrow<T::Borrowed>,
        V: Clone,
        E: Send + Sync + 'static,
    {
        let hash = self.0.hash(key.as_borrowed());
        // Without the guard of the lookup, which is not `Send` and must not live across an await.
        let key = match self.find(hash, key.as_borrowed()).unpinned() {
            Some((old, true)) => {
                let reload = self.reload_of(hash, key.into_key());
                return Ok(reload.run_future(old, load, end).await.value);
            }
            Some((value, false)) => return Ok(value),
            None => key.into_key(),
        };
        self.failed(hash, &key)?;
        let actor = ActorId::new_future();
        loop {
            match self.join(hash, &key, actor) {
                Joined::Lead { mut leader, recheck } => {
                    if let Some(value) = self.recheck_map(recheck, hash, &key, self.0.engine.pin(), &mut leader) {
                        return Ok(value);
                    }
                    let loaded = leader.run_future(actor, load, end).await.map_err(Arc::new);
                    // The weigher and other user code run while the load is in flight: to them,
                    // too, the key is being loaded.
                    let _polled = actor.enter_poll();
                    return self.lead(hash, key, &mut leader, loaded, |key, _| key);
                }
                Joined::Wait(flight) => {
                    if let Some(result) = shared(flight.completion()?.await) {
                        return result;
                    }
                }
            }
        }
    }
}
