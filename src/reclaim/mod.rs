//! When memory that readers may still reference is freed: one small interface, two implementations.
//!
//! Every cache has a [`Domain`], which its readers pin ([`Guard`], [`FastGuard`]). What a writer
//! has unlinked is sealed ([`Domain::seal`]). It may be freed once every reader that was pinned at
//! that time has passed the seal ([`Domain::passed`]): invariant 15 of ARCHITECTURE.md.
//!
//! `epoch` is the default. The feature `crossbeam` selects `crossbeam` instead. `registry` has the
//! indices of living threads.

#[cfg(all(feature = "crossbeam", not(loom)))]
mod crossbeam;
#[cfg(any(not(feature = "crossbeam"), loom))]
mod epoch;
mod registry;

#[cfg(all(feature = "crossbeam", not(loom)))]
use crossbeam as implementation;
#[cfg(all(not(feature = "crossbeam"), not(loom)))]
use epoch as implementation;
#[cfg(loom)]
use leak as implementation;

pub(crate) use implementation::{Domain, FastGuard, Guard, Seal, claim_index, fork_child, release_index, unprotected};

/// Pins the domain of tests that have a map and no cache.
#[cfg(test)]
pub(crate) fn pin() -> Guard {
    #[cfg(not(loom))]
    {
        static TESTS: std::sync::LazyLock<Domain> = std::sync::LazyLock::new(Domain::new);
        TESTS.pin()
    }
    #[cfg(loom)]
    Guard
}

/// Loom checks maps without reclamation, which has models of its own in `epoch`: no reader ever
/// passes a seal.
#[cfg(loom)]
mod leak {
    pub(crate) struct Guard;

    loom::thread_local! {
        /// The thread's index. Models in which several threads need different ones set it.
        pub(crate) static INDEX: std::cell::Cell<usize> = std::cell::Cell::new(0);
    }

    pub(crate) struct FastGuard(Guard);

    impl FastGuard {
        pub(crate) fn guard(&self) -> &Guard {
            &self.0
        }

        pub(crate) fn into_guard(self) -> Guard {
            self.0
        }
    }

    pub(crate) struct Domain;

    pub(crate) struct Seal;

    impl Domain {
        pub(crate) fn new() -> Self {
            Self
        }

        pub(crate) fn pin(&self) -> Guard {
            Guard
        }

        pub(crate) fn pin_fast(&self) -> Option<FastGuard> {
            Some(FastGuard(Guard))
        }

        pub(crate) fn pin_fenced(&self) -> Guard {
            loom::sync::atomic::fence(loom::sync::atomic::Ordering::SeqCst);
            Guard
        }

        pub(crate) fn seal(&self) -> Seal {
            Seal
        }

        /// # Safety
        /// As in `epoch`.
        pub(crate) unsafe fn seal_renewing(&self, _: &Guard) -> Seal {
            Seal
        }

        pub(crate) fn passed(&self, _: &Seal) -> (bool, usize) {
            (false, 0)
        }
    }

    /// # Safety
    /// As in `epoch`.
    pub(crate) unsafe fn unprotected() -> Guard {
        Guard
    }

    /// # Safety
    /// As in `epoch`.
    pub(crate) unsafe fn fork_child() {}

    impl Guard {
        pub(crate) fn thread_index(&self) -> usize {
            INDEX.with(std::cell::Cell::get)
        }
    }

    /// Returns false: the threads of a model live to its end, so no index is free.
    pub(crate) fn claim_index(_: usize) -> bool {
        false
    }

    pub(crate) fn release_index(_: usize) {}
}
#[cfg(all(loom, test))]
pub(crate) use leak::INDEX;
