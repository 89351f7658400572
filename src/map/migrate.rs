//! Growth: how the keys of one home move to a larger table. See ARCHITECTURE.md for who may do what meanwhile.

use super::Header;
use super::layout::{control, slot};
use super::table::{Inserted, Mode, OnPanic, Step, Table, UNCONDITIONAL, pointer};
use crate::prim::sync::Ordering;
use std::ptr::NonNull;

impl Table {
    /// Moves all keys of one home to `next`. Only one thread moves at a time. Entries for which `next` has no room are
    /// handed to `evicted`, unlinked.
    pub(super) fn move_home(&self, home: usize, next: &Table, evicted: &mut impl FnMut(NonNull<Header>)) {
        let control = &self.bucket(home).control;
        let on_panic = OnPanic(self);
        let frozen = loop {
            let seen = self.load_control(home);
            debug_assert_eq!(seen & control::MOVED, 0, "homes are moved once");
            self.finish(home, seen);
            let frozen = seen | control::FROZEN;
            if control
                .compare_exchange(seen, frozen, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
            {
                break frozen;
            }
        };
        for distance in 0..=control::probe_limit(frozen) {
            let bucket = self.bucket(self.bucket_at(home, distance));
            for at in &bucket.slots {
                let mut word = at.load(Ordering::Acquire);
                while word & slot::STATE == slot::VISIBLE && slot::distance(word) == distance {
                    let frozen = word ^ slot::VISIBLE ^ slot::FROZEN;
                    match at.compare_exchange(word, frozen, Ordering::AcqRel, Ordering::Acquire) {
                        Ok(_) => {
                            let entry = pointer(word);
                            // SAFETY: a present entry is alive while the mover is pinned.
                            let upper = unsafe { entry.as_ref() }.hash();
                            let hash = (upper as u64) << 32 | slot::fingerprint(word);
                            if !next.insert_moved(hash, entry) {
                                evicted(entry);
                            }
                            break;
                        }
                        Err(now) => word = now,
                    }
                }
            }
        }
        // A last insertion may have been un-pointed meanwhile, nothing else changes. Release: the moved keys are seen in
        // `next` by whoever sees MOVED. Acquire pairs with the waiters' in `wait_until_moved`.
        control.fetch_or(control::MOVED, Ordering::AcqRel);
        std::mem::forget(on_panic);
        self.wake_waiters();
    }

    /// Inserts an entry whose key is known to be absent, and stays so until its old home is MOVED.
    fn insert_moved(&self, hash: u64, entry: NonNull<Header>) -> bool {
        let done = self.insert(hash, entry, &mut |_| false, Mode::IfAbsent, &mut { UNCONDITIONAL });
        matches!(done, Step::Done(Inserted::New))
    }
}
