//! Growth: how the keys of one home bucket move to the next table.
//!
//! [`Table::move_home`] takes a home bucket through two states of its control word. FROZEN: no
//! insertion commits any more. MOVED: its keys are in the next table. Readers do not wait; until
//! they see MOVED, this table is the truth (invariant 6). Writers wait from FROZEN to MOVED
//! (invariant 7). ARCHITECTURE.md, section 5, has the whole protocol.

use super::header::Header;
use super::layout::{control, slot};
use super::table::{BreakOnPanic, Inserted, Mode, Step, Table, UNCONDITIONAL, pointer};
use crate::prim::sync::Ordering;
use std::ptr::NonNull;

impl Table {
    /// Moves all keys of one home bucket to `next`. Only one thread moves at a time (the holder of
    /// the maintenance lock).
    ///
    /// Entries for which `next` has no room are handed to `evicted`, unlinked.
    pub(super) fn move_home(&self, home: usize, next: &Table, evicted: &mut impl FnMut(NonNull<Header>)) {
        let control = &self.bucket(home).control;
        // A panic in between would leave the home bucket frozen: then writers fail instead of
        // waiting forever.
        let on_panic = BreakOnPanic(self);
        let frozen = loop {
            let control_word = self.load_control(home);
            debug_assert_eq!(control_word & control::MOVED, 0, "homes are moved once");
            // Invariant 3: the last insertion is made visible, so it is frozen and moved below like
            // all others.
            self.finish_last_insert(home, control_word);
            // Freeze the control word: each commit compares it, so no insertion commits from here
            // on. A claim that has not committed is given back by its owner.
            let frozen = control_word | control::FROZEN;
            if control
                // AcqRel, like a commit: this is ordered after the commit that it follows, and
                // threads that see FROZEN (Acquire in `load_control`) are ordered after this.
                .compare_exchange(control_word, frozen, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
            {
                break frozen;
            }
        };
        // No insertion commits any more, so the probe limit is final: all keys of the home bucket
        // lie within it.
        for distance in 0..=control::probe_limit(frozen) {
            let bucket = self.bucket(self.bucket_at(home, distance));
            for at in &bucket.slots {
                let mut word = at.load(Ordering::Acquire);
                // The distance separates the keys of this home bucket from others in the same
                // bucket. Replacements and removals may continue up to here, so a failed freeze
                // tries the new word.
                while word & slot::STATE == slot::VISIBLE && slot::distance(word) == distance {
                    let frozen = word ^ slot::VISIBLE ^ slot::FROZEN;
                    // Freeze the slot: from here on no thread changes it (invariant 7). Acquire:
                    // the entry's contents are seen, for the next table.
                    match at.compare_exchange(word, frozen, Ordering::AcqRel, Ordering::Acquire) {
                        Ok(_) => {
                            let entry = pointer(word);
                            // SAFETY: a present entry is alive while the mover is pinned.
                            let upper = unsafe { entry.as_ref() }.hash();
                            let hash = (upper as u64) << 32 | slot::fingerprint(word);
                            // Readers find the entry here until they see MOVED, and in `next`
                            // afterwards (invariant 6).
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
        // Redirect readers and writers to `next`. Since FROZEN only `clear_last_insert` may have
        // changed the word. Release pairs with the Acquire in `load_control`: a thread that sees
        // MOVED sees the moved keys in `next`. Acquire pairs with the read-modify-write in
        // `wait_until_moved`: if a waiter announced itself before this, `wake_waiters` sees it.
        control.fetch_or(control::MOVED, Ordering::AcqRel);
        std::mem::forget(on_panic);
        self.wake_waiters();
    }

    /// Inserts an entry whose key is absent from this table, and stays absent until its old home
    /// bucket is MOVED. Returns false if there is no room.
    fn insert_moved(&self, hash: u64, entry: NonNull<Header>) -> bool {
        let done = self.insert(hash, entry, &mut |_| false, Mode::IfAbsent, &mut { UNCONDITIONAL });
        matches!(done, Step::Done(Inserted::New))
    }
}
