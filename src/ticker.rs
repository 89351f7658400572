//! The threads that a cache owns, and their shutdown.
//!
//! [`Service`] runs a task at an interval on a thread of its own: the ticker, which performs
//! maintenance while no other thread uses the cache, or the saver of automatic snapshots.

use crate::cache::{Cache, Inner};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{io, process};

/// Wakes a service's thread for its shutdown, so that it does not sleep until its next interval.
#[derive(Default)]
struct Shutdown {
    requested: Mutex<bool>,
    wakeup: Condvar,
}

impl Shutdown {
    fn request(&self) {
        *self.requested.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wakeup.notify_all();
    }

    /// Waits for `interval`. Returns true if a shutdown was requested.
    fn wait(&self, interval: Duration) -> bool {
        let requested = self.requested.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .wakeup
            .wait_timeout_while(requested, interval, |requested| !*requested);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

thread_local! {
    /// Whether this thread is a ticker or a saver.
    static IS_SERVICE: Cell<bool> = const { Cell::new(false) };
}

/// A thread that a cache owns. Dropping it requests the shutdown, and joins the thread.
///
/// A thread does not join itself. A thread of another cache does not join a ticker either: user
/// code may drop handles on both, and two tickers could wait for each other. A saver is joined even
/// then, so that a later save is not overwritten by its own. In the child of a fork the thread does
/// not exist, and the drop does nothing.
pub(crate) struct Service {
    kind: Kind,
    shutdown: Arc<Shutdown>,
    thread: Option<JoinHandle<()>>,
    process: u32,
}

/// The task of a service's thread.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// Performs maintenance.
    Ticker,
    /// Saves automatic snapshots.
    Saver,
}

impl Service {
    /// Runs `task` every `interval` on a new thread, until the service is dropped or `task` returns
    /// false.
    pub(crate) fn start(
        kind: Kind,
        interval: Duration,
        mut task: impl FnMut() -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let shutdown = Arc::new(Shutdown::default());
        let wakeup = shutdown.clone();
        let name = match kind {
            Kind::Ticker => "hotset-ticker",
            Kind::Saver => "hotset-saver",
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            IS_SERVICE.set(true);
            while !wakeup.wait(interval) && task() {}
        })?;
        Ok(Self {
            kind,
            shutdown,
            thread: Some(thread),
            process: process::id(),
        })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.process != process::id() {
            return;
        }
        self.shutdown.request();
        let Some(thread) = self.thread.take() else { return };
        let waits = match self.kind {
            Kind::Ticker => !IS_SERVICE.try_with(Cell::get).unwrap_or(false),
            Kind::Saver => thread.thread().id() != thread::current().id(),
        };
        if waits {
            _ = thread.join(); // the thread catches its panics
        }
    }
}

impl<K, V, S> Cache<K, V, S>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: Send + Sync + 'static,
{
    /// Starts the ticker. Its thread holds the cache only while it works.
    pub(crate) fn start_ticker(&self, interval: Duration) -> io::Result<Service> {
        let cache: Weak<Inner<K, V, S>> = Arc::downgrade(&self.0);
        Service::start(Kind::Ticker, interval, move || {
            let Some(inner) = cache.upgrade() else { return false };
            let continues = !inner.engine.is_poisoned();
            if continues {
                // The panic hook has reported a panic of a listener or destructor, and the
                // maintenance was completed.
                _ = catch_unwind(AssertUnwindSafe(|| inner.engine.run_pending()));
            }
            _ = catch_unwind(AssertUnwindSafe(|| drop(inner)));
            continues
        })
    }
}
