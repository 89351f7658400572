//! Calls for tasks of an executor.

use super::calls::{Loading, Removing, Writing, is_loading, is_no_value, needs_permit, ttl_nanos};
use super::clock::now;
use super::keys::TierKey;
use super::session::Session;
use super::steps::{Call, Need, Steps};
use super::{NoValue, Start, Tiered, borrowed, tag_names};
use crate::error::LoadError;
use crate::expiry::Ttl;
use crate::flight::ActorId;
use crate::loading::shared;
use crate::tier2::{Action, Operation};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

/// # Asynchronous calls
///
/// The futures run on any executor: requests to the server are made by up to 8 threads of the
/// cache, which start with the first of them. They borrow the cache: clone a handle into a task
/// that must own what it uses. They are `Send` if the loader is.
///
/// Dropping a future is always safe. A load that it led is given up, and another caller loads. A
/// write or a removal whose future is dropped before its end is unconfirmed: the key is removed in
/// all processes.
#[cfg_attr(docsrs, doc(cfg(feature = "async")))]
impl<K: TierKey + ?Sized, V: Clone + Send + Sync + 'static> Tiered<K, V> {
    /// [`get`](Self::get), asynchronously.
    pub async fn get_async(&self, key: &K) -> Option<V> {
        let none = None::<Pin<&mut std::future::Ready<Result<(V, Ttl), NoValue>>>>;
        self.find_async(key, none, &[]).await.unwrap_or_default()
    }

    /// [`get_or_load`](Self::get_or_load) with a loader that is a future, which is dropped unpolled
    /// if it is not needed.
    ///
    /// # Examples
    /// ```no_run
    /// # #[cfg(feature = "redis")]
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # use hotset::tiered::{Bytes, Redis, Tiered};
    /// # let redis = Redis::open("redis://localhost:6379/0")?;
    /// # let prices: Tiered<str, String> = Tiered::builder("shop", "prices", redis, Bytes).max_entries(9).build()?;
    /// let tea = prices.get_or_load_async("tea", async { Ok::<_, std::io::Error>("3.20".into()) }).await?;
    /// # Ok(())
    /// # }
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    /// As [`get_or_load`](Self::get_or_load).
    ///
    /// # Panics
    /// If `load` or the codec panics. Other callers load by themselves then.
    pub async fn get_or_load_async<E: Send + Sync + 'static>(
        &self,
        key: &K,
        load: impl Future<Output = Result<V, E>>,
    ) -> Result<V, LoadError<E>> {
        let load = async { load.await.map(|value| (value, Ttl::Default)) };
        self.get_or_load_tagged_async(key, &[], load).await
    }

    /// [`get_or_load_tagged`](Self::get_or_load_tagged) with a loader that is a future.
    ///
    /// # Errors
    /// As [`get_or_load`](Self::get_or_load).
    ///
    /// # Panics
    /// As [`get_or_load_tagged`](Self::get_or_load_tagged).
    pub async fn get_or_load_tagged_async<E: Send + Sync + 'static>(
        &self,
        key: &K,
        tags: &[&str],
        load: impl Future<Output = Result<(V, Ttl), E>>,
    ) -> Result<V, LoadError<E>> {
        let found = self.find_async(key, Some(pin!(load)), tags).await?;
        Ok(found.expect("a read with a loader ends with a value or an error"))
    }

    /// [`set`](Self::set), asynchronously.
    pub async fn set_async(&self, key: &K, value: V) -> bool {
        self.set_tagged_async(key, value, Ttl::Default, &[]).await
    }

    /// [`set_tagged`](Self::set_tagged), asynchronously.
    ///
    /// # Panics
    /// As [`set_tagged`](Self::set_tagged).
    pub async fn set_tagged_async(&self, key: &K, value: V, ttl: Ttl, tags: &[&str]) -> bool {
        let inner = &*self.0;
        if !inner.session.is_own() {
            return false;
        }
        let (name, full_key) = self.name_of(key);
        let shared = self.shared(&name, full_key.as_deref());
        let (payload, whole) = shared.encode(&value);
        let server = self.server_of(&name);
        if !whole {
            // Tier 2 must not have the old value.
            if self.remove_async(key).await {
                self.keep_local(name, value, ttl);
            }
            return false;
        }
        let tags = tag_names(tags);
        let ttl = ttl_nanos(ttl);
        let operation = inner
            .namespace
            .write(name.as_bytes(), server, now(), ttl, &borrowed(&tags));
        let marks = self.marks(&name, ActorId::new_future());
        let call = Writing { shared, marks, payload };
        let mut running = Running::new(&inner.session, operation, call);
        let end = running.end().await;
        let (call, operation) = running.into_parts();
        call.end(end, &operation, &value)
    }

    /// [`remove`](Self::remove), asynchronously.
    pub async fn remove_async(&self, key: &K) -> bool {
        let inner = &*self.0;
        let begin = |name: &[u8], server| inner.namespace.remove(name, server, now());
        self.change_async(key, begin).await
    }

    /// [`expire`](Self::expire), asynchronously.
    pub async fn expire_async(&self, key: &K) -> bool {
        let inner = &*self.0;
        let begin = |name: &[u8], server| inner.namespace.expire(name, server, now());
        self.change_async(key, begin).await
    }

    async fn change_async(&self, key: &K, begin: impl FnOnce(&[u8], u32) -> Operation) -> bool {
        let inner = &*self.0;
        if !inner.session.is_own() {
            return false;
        }
        let (name, _) = self.name_of(key);
        let operation = begin(name.as_bytes(), self.server_of(&name));
        let call = Removing {
            cache: &inner.cache,
            name: Some(&name),
        };
        let end = Running::new(&inner.session, operation, call).end().await;
        inner.session.waiters.wake(name.as_bytes());
        end == Action::Done
    }

    async fn find_async<E, F>(
        &self,
        key: &K,
        mut load: Option<Pin<&mut F>>,
        tags: &[&str],
    ) -> Result<Option<V>, LoadError<E>>
    where
        E: Send + Sync + 'static,
        F: Future<Output = Result<(V, Ttl), E>>,
    {
        let (name, full_key) = self.name_of(key);
        if let Some(value) = self.hit(name.as_bytes()) {
            return Ok(Some(value));
        }
        let inner = &*self.0;
        if !inner.session.is_own() {
            let Some(load) = load else {
                return Ok(None);
            };
            return match load.await {
                Ok((value, _)) => Ok(Some(value)),
                Err(error) => Err(LoadError::Failed(error.into())),
            };
        }
        if load.is_some() && is_loading(&inner.session, &name) {
            return Err(LoadError::Reentrant);
        }
        let actor = ActorId::new_future();
        let leader = loop {
            match self.start(&name, actor) {
                Start::Value(value) => return Ok(Some(value)),
                Start::Lead(leader) => break leader,
                Start::Wait(flight) => {
                    let outcome = flight.completion()?.await;
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
        let steps = self.reading::<E>(&name, full_key.as_deref(), actor, leader, load.is_some(), tags);
        let mut running = Running {
            session: &inner.session,
            steps: Some(steps),
        };
        let end = loop {
            match running.advance().await {
                Paused::End(end) => break end,
                Paused::Load { is_limited } => {
                    let Some(mut load) = load.take() else {
                        // The core has one load per operation.
                        let end = running.steps().call.gave_up();
                        running.steps().loaded(end);
                        continue;
                    };
                    let permit = if is_limited && needs_permit(&inner.session) {
                        Some(inner.session.loads.begin_async().await)
                    } else {
                        None
                    };
                    let loaded = poll_fn(|cx| {
                        // What this thread does in the poll, the loader does.
                        let loading = Loading::new(&inner.session, &name, is_limited);
                        let polled = actor.enter_poll();
                        let polling = catch_unwind(AssertUnwindSafe(|| load.as_mut().poll(cx)));
                        drop((loading, polled));
                        match polling {
                            Ok(Poll::Pending) => Poll::Pending,
                            Ok(Poll::Ready(result)) => Poll::Ready(Ok(result.map_err(Arc::new))),
                            Err(panic) => Poll::Ready(Err(panic)),
                        }
                    });
                    let loaded = loaded.await;
                    drop(permit);
                    let end = running.steps().call.loaded(loaded);
                    running.steps().loaded(end);
                }
            }
        };
        let (call, operation) = running.into_parts();
        call.end(end, &operation).map_err(LoadError::Failed)
    }
}

/// Where an operation stops that a task runs.
enum Paused {
    /// At the load: [`Steps::loaded`] continues it.
    Load {
        is_limited: bool,
    },
    End(Action),
}

/// An operation that a task runs; dropped before its end, it is given up.
struct Running<'s, C: Call> {
    session: &'s Arc<Session>,
    /// `None` after [`into_parts`](Self::into_parts).
    steps: Option<Steps<C>>,
}

impl<'s, C: Call> Running<'s, C> {
    fn new(session: &'s Arc<Session>, operation: Operation, call: C) -> Self {
        let steps = Some(Steps::new(operation, call));
        Self { session, steps }
    }

    fn steps(&mut self) -> &mut Steps<C> {
        self.steps.as_mut().expect("it has not ended")
    }

    /// Runs to the load, or to the end.
    async fn advance(&mut self) -> Paused {
        loop {
            match self.steps().next() {
                Need::Send => {
                    let request = self.steps().request.take().expect("it is at a command");
                    self.steps().request = Some(self.session.command_async(request).await);
                }
                Need::Probe(server) => {
                    self.session.probe_async(server).await;
                    self.steps().stepped();
                }
                Need::Wait(until) => {
                    let session = self.session;
                    let key = self.steps().operation().key().to_vec();
                    session.waiters.wait_async(&session.pool, &key, until).await;
                    self.steps().stepped();
                }
                Need::Load { is_limited } => return Paused::Load { is_limited },
                Need::End(end) => {
                    let session = self.session;
                    self.steps().wake(session);
                    return Paused::End(end);
                }
            }
        }
    }

    /// Runs an operation without a load to its end.
    async fn end(&mut self) -> Action {
        loop {
            match self.advance().await {
                Paused::End(end) => return end,
                Paused::Load { .. } => self.steps().loaded(super::LoadEnd::Failed),
            }
        }
    }

    fn into_parts(mut self) -> (C, Operation) {
        self.steps.take().expect("it has not ended").into_parts()
    }
}

impl<C: Call> Drop for Running<'_, C> {
    fn drop(&mut self) {
        let request = self.steps.as_mut().and_then(|steps| steps.request.take());
        if let Some(request) = request {
            self.session.abandon(request.operation);
        }
    }
}
