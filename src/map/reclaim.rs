//! When memory that readers may still look at is freed: one small interface, two implementations.

#[cfg(all(feature = "crossbeam", not(loom)))]
pub(crate) use super::crossbeam::{Guard, Horizon, Seal, alone, fork_child, pin, pin_fenced, pin_first, seal};
#[cfg(all(not(feature = "crossbeam"), not(loom)))]
pub(crate) use super::epoch::{Guard, Horizon, Seal, alone, fork_child, pin, pin_fenced, pin_first, seal};

/// Under loom maps are checked without reclamation (which has its own model in `epoch`): no reader is ever past a seal.
#[cfg(loom)]
mod leak {
    pub(crate) struct Guard;

    loom::thread_local! {
        /// Set by models in which several threads need different ones.
        pub(crate) static INDEX: std::cell::Cell<usize> = std::cell::Cell::new(0);
    }

    pub(crate) fn pin() -> Guard {
        Guard
    }

    pub(crate) fn pin_first() -> Option<Guard> {
        Some(Guard)
    }

    /// # Safety
    /// As in `epoch`.
    pub(crate) unsafe fn alone() -> Guard {
        Guard
    }

    /// # Safety
    /// As in `epoch`.
    pub(crate) unsafe fn fork_child() {}

    pub(crate) fn pin_fenced() -> Guard {
        loom::sync::atomic::fence(loom::sync::atomic::Ordering::SeqCst);
        Guard
    }

    impl Guard {
        pub(crate) fn thread_index(&self) -> usize {
            INDEX.with(std::cell::Cell::get)
        }
    }

    pub(super) struct Seal;

    pub(super) fn seal() -> Seal {
        Seal
    }

    pub(super) struct Horizon;

    impl Horizon {
        pub(super) fn now() -> Self {
            Self
        }

        pub(super) fn passed(&self, _: &Seal) -> bool {
            false
        }
    }
}
#[cfg(all(loom, test))]
pub(crate) use leak::INDEX;
#[cfg(loom)]
pub(crate) use leak::{Guard, alone, fork_child, pin, pin_fenced, pin_first};
#[cfg(loom)]
use leak::{Horizon, Seal, seal};

mod bin {
    use super::{Horizon, Seal, seal};
    use std::collections::VecDeque;

    /// How many pieces of garbage share one seal.
    const BAG: u32 = 64;
    /// Above so much garbage that can be freed, all of it is.
    const SURPLUS: usize = 256;

    /// Garbage in the order it was unlinked, waiting for readers to move on. Sequential; frees nothing by itself.
    pub(crate) struct Bin<T> {
        garbage: VecDeque<T>,
        /// Of the garbage, so much from the front can be seen by no reader any more.
        safe: usize,
        /// Of what follows, so much belongs to each seal.
        sealed: VecDeque<(Seal, u32)>,
        /// So much at the end has no seal yet: less than a bag.
        open: u32,
        /// How much came since `due` was last asked for.
        fresh: u32,
        /// Look at the readers again when this many bags are sealed: backs off while a reader holds them up.
        patience: usize,
    }

    impl<T> Bin<T> {
        pub(crate) fn new() -> Self {
            Self {
                garbage: VecDeque::new(),
                safe: 0,
                sealed: VecDeque::new(),
                open: 0,
                fresh: 0,
                patience: 1,
            }
        }

        /// Takes something that was unlinked and is never reachable again.
        #[inline]
        pub(crate) fn put(&mut self, garbage: T) {
            self.garbage.push_back(garbage);
            self.fresh = self.fresh.saturating_add(1);
            self.open += 1;
            if self.open >= BAG {
                self.close();
            }
        }

        #[cold]
        fn close(&mut self) {
            self.sealed.push_back((seal(), std::mem::take(&mut self.open)));
            if self.sealed.len() >= self.patience {
                self.sort();
            }
        }

        /// Seals what is here now: who was pinned before may hold it up, but nobody who comes later.
        pub(crate) fn seal_all(&mut self) {
            if self.open > 0 {
                self.sealed.push_back((seal(), std::mem::take(&mut self.open)));
            }
        }

        /// Finds out what no reader can see any more, of all that is here now.
        pub(crate) fn sort_all(&mut self) {
            self.seal_all();
            self.sort();
        }

        fn sort(&mut self) {
            if self.sealed.is_empty() {
                return;
            }
            let horizon = Horizon::now();
            while let Some((seal, bag)) = self.sealed.front()
                && horizon.passed(seal)
            {
                self.safe += *bag as usize;
                self.sealed.pop_front();
            }
            self.patience = self.sealed.len() + 1 + self.sealed.len() / 4;
        }

        pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
            self.garbage.iter()
        }

        pub(crate) fn is_empty(&self) -> bool {
            self.garbage.is_empty()
        }

        /// How much of what can be freed now should be: a little more than came in, which spreads the cost over the writers;
        /// all of it, if that has not kept up.
        #[inline]
        pub(crate) fn due(&mut self) -> usize {
            let fresh = std::mem::take(&mut self.fresh) as usize;
            if self.safe > SURPLUS {
                self.safe
            } else {
                self.safe.min(fresh + fresh / 32 + 1)
            }
        }

        /// How much can be freed now.
        #[inline]
        pub(crate) fn safe(&self) -> usize {
            self.safe
        }

        /// Takes so much of what can be freed now.
        #[inline]
        pub(crate) fn take(&mut self, count: usize) -> impl Iterator<Item = T> {
            debug_assert!(count <= self.safe);
            self.safe -= count;
            (0..count).map_while(|_| self.garbage.pop_front())
        }

        /// Everything, whoever may be looking: for a cache that nobody can reach any more.
        pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> {
            std::mem::take(self).garbage.into_iter()
        }
    }

    impl<T> Default for Bin<T> {
        fn default() -> Self {
            Self::new()
        }
    }
}
pub(crate) use bin::Bin;
