//! Panics of user code, kept until the library's own work is done.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
#[cfg(feature = "async")]
use std::task::Waker;

/// The first panic of user code that ran while work remained. [`resume`](Self::resume) raises it
/// once that work is done.
#[derive(Default)]
pub(crate) struct Panics(Option<Box<dyn Any + Send>>);

impl Panics {
    /// Calls `user_code` and keeps its panic, unless an earlier one is kept already.
    pub(crate) fn catch(&mut self, user_code: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(user_code)) {
            self.0.get_or_insert(panic);
        }
    }

    /// Whether a panic is kept.
    #[cfg(all(feature = "stats-file", unix))]
    pub(crate) fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Raises the kept panic, if any. If the thread is already unwinding, drops it: a second panic
    /// would abort.
    pub(crate) fn resume(self) {
        if let Some(panic) = self.0
            && !std::thread::panicking()
        {
            resume_unwind(panic);
        }
    }
}

/// Wakes all tasks, even if some of the wakers panic. The first panic is resumed at the end.
#[cfg(feature = "async")]
pub(crate) fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    let mut panics = Panics::default();
    for waker in wakers {
        panics.catch(|| waker.wake());
    }
    panics.resume();
}
