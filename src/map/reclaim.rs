//! When memory that readers may still look at is freed: one small interface, two implementations.

#[cfg(all(feature = "crossbeam", not(loom)))]
pub(crate) use super::crossbeam::{Guard, Horizon, Seal, pin, pin_first, seal};
#[cfg(all(not(feature = "crossbeam"), not(loom)))]
pub(crate) use super::epoch::{Guard, Horizon, Seal, pin, pin_first, seal};

/// Under loom maps are checked without reclamation (which has its own model in `epoch`): no reader is ever past a seal.
#[cfg(loom)]
mod leak {
    pub(crate) struct Guard;

    pub(crate) fn pin() -> Guard {
        Guard
    }

    pub(crate) fn pin_first() -> Option<Guard> {
        Some(Guard)
    }

    impl Guard {
        pub(crate) fn thread_index(&self) -> usize {
            0
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
#[cfg(loom)]
pub(crate) use leak::{Guard, pin, pin_first};
#[cfg(loom)]
use leak::{Horizon, Seal, seal};

mod bin {
    use super::{Horizon, Seal, seal};
    use std::collections::VecDeque;

    /// How many pieces of garbage share one seal.
    const BAG: usize = 64;

    /// Garbage in the order it was unlinked, waiting for readers to move on. Sequential; frees nothing by itself.
    pub(crate) struct Bin<T> {
        open: Vec<T>,
        sealed: VecDeque<(Seal, Vec<T>)>,
        /// No reader sees these any more.
        safe: Vec<T>,
        /// Look at the readers again when this many bags are sealed: backs off while a reader holds them up.
        patience: usize,
    }

    impl<T> Bin<T> {
        pub(crate) fn new() -> Self {
            Self {
                open: Vec::new(),
                sealed: VecDeque::new(),
                safe: Vec::new(),
                patience: 1,
            }
        }

        /// Takes something that was unlinked and is never reachable again. True if it is time to [`sort`](Self::sort).
        #[inline]
        pub(crate) fn put(&mut self, garbage: T) -> bool {
            self.open.push(garbage);
            if self.open.len() >= BAG {
                self.sealed.push_back((seal(), std::mem::take(&mut self.open)));
                return self.sealed.len() >= self.patience;
            }
            false
        }

        /// Finds out what no reader can see any more, for [`pop`](Self::pop). With `all`, the open bag is sealed first.
        #[cold]
        pub(crate) fn sort(&mut self, all: bool) {
            if all && !self.open.is_empty() {
                self.sealed.push_back((seal(), std::mem::take(&mut self.open)));
            }
            if self.sealed.is_empty() {
                return;
            }
            let horizon = Horizon::now();
            while let Some((seal, _)) = self.sealed.front()
                && horizon.passed(seal)
            {
                let (_, mut bag) = self.sealed.pop_front().expect("a front was just seen");
                self.safe.append(&mut bag);
                if self.open.capacity() == 0 {
                    self.open = bag;
                }
            }
            self.patience = self.sealed.len() + 1 + self.sealed.len() / 4;
        }

        /// Something that can be freed now.
        #[inline]
        pub(crate) fn pop(&mut self) -> Option<T> {
            self.safe.pop()
        }

        /// All that can be freed now, if there is more of it than a few pieces at a time can keep up with.
        #[inline]
        pub(crate) fn surplus(&mut self) -> Vec<T> {
            if self.safe.len() > 4 * BAG {
                std::mem::take(&mut self.safe)
            } else {
                Vec::new()
            }
        }

        /// Everything, whoever may be looking: for a cache that nobody can reach any more.
        pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> {
            std::mem::take(&mut self.sealed)
                .into_iter()
                .flat_map(|(_, bag)| bag)
                .chain(std::mem::take(&mut self.open))
                .chain(std::mem::take(&mut self.safe))
        }
    }
}
pub(crate) use bin::Bin;
