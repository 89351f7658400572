//! The optional thread that does a cache's housekeeping while nobody uses it.

use crate::cache::{Cache, Inner};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// Told when the last handle is dropped, so that the thread does not sleep on until its next turn.
#[derive(Default)]
pub(crate) struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    pub(crate) fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.heard.notify_all();
    }

    /// Waits for so long; true if it rang.
    pub(crate) fn wait(&self, interval: Duration) -> bool {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.heard.wait_timeout_while(rung, interval, |rung| !*rung);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Lives in the cache; rings when it is dropped.
pub(crate) struct Rope(Arc<Bell>);

impl Drop for Rope {
    fn drop(&mut self) {
        self.0.ring();
    }
}

impl<K, V, S> Cache<K, V, S>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: Send + Sync + 'static,
{
    /// Starts the thread. It holds the cache only while it works.
    pub(crate) fn start_ticker(&self, interval: Duration) -> io::Result<Rope> {
        let bell = Arc::new(Bell::default());
        let cache: Weak<Inner<K, V, S>> = Arc::downgrade(&self.0);
        let heard = bell.clone();
        thread::Builder::new().name("hotset-ticker".to_owned()).spawn(move || {
            while !heard.wait(interval) {
                let Some(inner) = cache.upgrade() else { return };
                // A listener or a destructor that panics has been reported by the panic hook; the work was done.
                _ = catch_unwind(AssertUnwindSafe(|| inner.engine.run_pending()));
                _ = catch_unwind(AssertUnwindSafe(|| drop(inner)));
            }
        })?;
        Ok(Rope(bell))
    }
}
