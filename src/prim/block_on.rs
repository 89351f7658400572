//! Tasks in loom's models: each is run by a thread of the model, which sleeps until it is woken.

use crate::prim::sync::{Condvar, Mutex};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

/// Wakes a thread of the model.
pub(crate) struct ThreadWaker {
    wakes: Mutex<usize>,
    woken: Condvar,
}

impl ThreadWaker {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            wakes: Mutex::new(0),
            woken: Condvar::new(),
        })
    }

    /// Sleeps until it has been woken since the last call.
    pub(crate) fn wait(&self) {
        let mut wakes = self.wakes.lock().unwrap();
        while *wakes == 0 {
            wakes = self.woken.wait(wakes).unwrap();
        }
        *wakes = 0;
    }

    /// Returns how often it was woken since the last [`wait`](Self::wait).
    pub(crate) fn wakes(&self) -> usize {
        *self.wakes.lock().unwrap()
    }
}

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        *self.wakes.lock().unwrap() += 1;
        self.woken.notify_one();
    }
}

/// Runs a future to its end. A lost wake-up shows as a deadlock.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let thread_waker = ThreadWaker::new();
    let waker = Waker::from(thread_waker.clone());
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread_waker.wait(),
        }
    }
}
