//! A cache's own threads: the optional one that does maintenance while no other thread uses the cache, and their end.

use std::cell::Cell;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{io, process};

/// Told when the last handle is dropped, so that the thread does not sleep on until its next turn.
#[derive(Default)]
struct Shutdown {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Shutdown {
    fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.heard.notify_all();
    }

    /// Waits for so long; true if it rang.
    fn wait(&self, interval: Duration) -> bool {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.heard.wait_timeout_while(rung, interval, |rung| !*rung);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

thread_local! {
    /// This thread is a cache's own: its ticker, or its saver.
    static IS_SERVICE: Cell<bool> = const { Cell::new(false) };
}

/// A thread of a cache's own. When this is dropped, the thread is told to end, and waited for.
///
/// It does not wait for itself. Nor does a thread of another cache wait for a ticker: user code may drop handles on both, and
/// two of them could wait for each other. A saver is waited for even then, so that a later save is not overwritten by its
/// own. In the child of a fork, which does not have the thread, nothing is done.
pub(crate) struct Service {
    kind: Kind,
    shutdown: Arc<Shutdown>,
    thread: Option<JoinHandle<()>>,
    process: u32,
}

/// What a thread does.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// Maintenance.
    Ticker,
    /// Saves to a snapshot.
    #[cfg(feature = "snapshot")]
    Saver,
}

impl Service {
    /// Runs `turn` every `interval` on a new thread, until the service is dropped or `turn` returns false.
    pub(crate) fn start(
        kind: Kind,
        interval: Duration,
        mut turn: impl FnMut() -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let shutdown = Arc::new(Shutdown::default());
        let heard = shutdown.clone();
        let name = match kind {
            Kind::Ticker => "hotset-ticker",
            #[cfg(feature = "snapshot")]
            Kind::Saver => "hotset-saver",
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            IS_SERVICE.set(true);
            while !heard.wait(interval) && turn() {}
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
        self.shutdown.ring();
        let Some(thread) = self.thread.take() else { return };
        let waits = match self.kind {
            Kind::Ticker => !IS_SERVICE.try_with(Cell::get).unwrap_or(false),
            #[cfg(feature = "snapshot")]
            Kind::Saver => thread.thread().id() != thread::current().id(),
        };
        if waits {
            _ = thread.join(); // it catches its panics
        }
    }
}
