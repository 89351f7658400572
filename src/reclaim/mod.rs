//! When memory that readers may still look at is freed: one small interface, two implementations.
//!
//! Every cache has a [`Domain`], which its readers pin. What was unlinked is sealed ([`Domain::seal`]), and may be freed once the
//! seal has been passed ([`Domain::passed`]) by every reader that was pinned at the time.

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

pub(crate) use implementation::{Brief, Domain, Guard, Seal, claim_index, fork_child, release_index, unprotected};

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

/// Under loom maps are checked without reclamation (which has its own model in `epoch`): no reader ever passes a seal.
#[cfg(loom)]
mod leak {
    pub(crate) struct Guard;

    loom::thread_local! {
        /// Set by models in which several threads need different ones.
        pub(crate) static INDEX: std::cell::Cell<usize> = std::cell::Cell::new(0);
    }

    pub(crate) struct Brief(Guard);

    impl Brief {
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

        pub(crate) fn pin_briefly(&self) -> Option<Brief> {
            Some(Brief(Guard))
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

    /// A model's threads live to its end.
    pub(crate) fn claim_index(_: usize) -> bool {
        false
    }

    pub(crate) fn release_index(_: usize) {}
}
#[cfg(all(loom, test))]
pub(crate) use leak::INDEX;
