//! A sequential table in order of use: an open-addressing index of entries that are linked in a ring.
//!
//! It knows keys and values as pointers that it neither counts nor compares: so nobody's code runs here, and the table is whole
//! whenever any does. Who compared keys by such code looks at `version` afterwards.

use crate::objects::Object;

/// The entry that the ring begins and ends with; it has no key.
const RING: u32 = 0;
const NONE: u32 = u32::MAX;
/// The most entries, so that places and sizes of the index fit into 32 bits.
const MAX_ENTRIES: usize = 1 << 30;

#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) key: Object,
    pub(super) value: Object,
    hash: u64,
    /// Towards what was used more recently.
    newer: u32,
    /// Towards what was used less recently; of a free entry, the next one that is.
    older: u32,
}

#[derive(Clone, Copy)]
struct Slot {
    /// The upper half of the hash: the slot's home is its upper bits.
    hash: u32,
    entry: u32,
}

const EMPTY: Slot = Slot { hash: 0, entry: NONE };

pub(super) struct Table {
    slots: Vec<Slot>,
    entries: Vec<Entry>,
    free: u32,
    len: usize,
    /// Goes on with every change of what is in the table.
    version: u64,
}

// SAFETY: pointers to Python objects, which any attached thread may use.
unsafe impl Send for Table {}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            slots: vec![EMPTY; 8],
            entries: vec![Entry {
                key: std::ptr::null_mut(),
                value: std::ptr::null_mut(),
                hash: 0,
                newer: RING,
                older: RING,
            }],
            free: NONE,
            len: 0,
            version: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    #[inline(always)]
    pub(super) fn entry(&self, at: u32) -> &Entry {
        &self.entries[at as usize]
    }

    /// Where a search for a hash begins.
    #[inline(always)]
    pub(super) fn home(&self, hash: u64) -> usize {
        self.home_of((hash >> 32) as u32)
    }

    #[inline(always)]
    fn home_of(&self, upper: u32) -> usize {
        ((u64::from(upper) * self.slots.len() as u64) >> 32) as usize
    }

    /// The next entry with this hash, from slot `at` on, which moves behind it.
    #[inline(always)]
    pub(super) fn candidate(&self, hash: u64, at: &mut usize) -> Option<u32> {
        let mask = self.slots.len() - 1;
        loop {
            let slot = self.slots[*at & mask];
            if slot.entry == NONE {
                return None;
            }
            *at = (*at & mask) + 1;
            if slot.hash == (hash >> 32) as u32 && self.entry(slot.entry).hash == hash {
                return Some(slot.entry);
            }
        }
    }

    /// Makes an entry the most recently used.
    #[inline(always)]
    pub(super) fn touch(&mut self, at: u32) {
        if self.entries[RING as usize].older != at {
            self.unlink(at);
            self.link(at);
        }
    }

    #[inline(always)]
    fn unlink(&mut self, at: u32) {
        let Entry { newer, older, .. } = self.entries[at as usize];
        self.entries[newer as usize].older = older;
        self.entries[older as usize].newer = newer;
    }

    #[inline(always)]
    fn link(&mut self, at: u32) {
        let first = self.entries[RING as usize].older;
        self.entries[RING as usize].older = at;
        self.entries[first as usize].newer = at;
        let entry = &mut self.entries[at as usize];
        (entry.newer, entry.older) = (RING, first);
    }

    /// Adds an entry whose key is not here, as the most recently used; false if there are too many.
    pub(super) fn insert(&mut self, hash: u64, key: Object, value: Object) -> bool {
        if self.len >= MAX_ENTRIES {
            return false;
        }
        if (self.len + 1) * 3 > self.slots.len() * 2 {
            self.grow();
        }
        let entry = Entry {
            key,
            value,
            hash,
            newer: NONE,
            older: NONE,
        };
        let at = if self.free == NONE {
            self.entries.push(entry);
            (self.entries.len() - 1) as u32
        } else {
            let at = self.free;
            self.free = self.entries[at as usize].older;
            self.entries[at as usize] = entry;
            at
        };
        self.link(at);
        self.place(Slot {
            hash: (hash >> 32) as u32,
            entry: at,
        });
        self.len += 1;
        self.version += 1;
        true
    }

    fn place(&mut self, slot: Slot) {
        let mask = self.slots.len() - 1;
        let mut at = self.home_of(slot.hash);
        while self.slots[at].entry != NONE {
            at = (at + 1) & mask;
        }
        self.slots[at] = slot;
    }

    fn grow(&mut self) {
        let old = std::mem::take(&mut self.slots);
        self.slots = vec![EMPTY; old.len() * 2];
        for slot in old {
            if slot.entry != NONE {
                self.place(slot);
            }
        }
    }

    /// Puts another value into an entry, and returns what was there.
    pub(super) fn replace(&mut self, at: u32, value: Object) -> Object {
        self.version += 1;
        std::mem::replace(&mut self.entries[at as usize].value, value)
    }

    /// Takes out the least recently used entry.
    pub(super) fn pop(&mut self) -> Option<(Object, Object)> {
        let at = self.entries[RING as usize].newer;
        if at == RING {
            return None;
        }
        let Entry { key, value, hash, .. } = self.entries[at as usize];
        let mask = self.slots.len() - 1;
        let mut hole = self.home(hash);
        while self.slots[hole].entry != at {
            hole = (hole + 1) & mask;
        }
        // Those behind close up, as far as they are behind their homes, so that searches may end at a free slot.
        let mut next = (hole + 1) & mask;
        while self.slots[next].entry != NONE {
            let from_home = next.wrapping_sub(self.home_of(self.slots[next].hash)) & mask;
            if from_home >= (next.wrapping_sub(hole) & mask) {
                self.slots[hole] = self.slots[next];
                hole = next;
            }
            next = (next + 1) & mask;
        }
        self.slots[hole] = EMPTY;
        self.unlink(at);
        self.entries[at as usize].older = self.free;
        self.free = at;
        self.len -= 1;
        self.version += 1;
        Some((key, value))
    }

    /// All keys and values, from the most recently used.
    pub(super) fn contents(&self) -> impl Iterator<Item = (Object, Object)> {
        let mut at = RING;
        std::iter::from_fn(move || {
            at = self.entries[at as usize].older;
            let entry = &self.entries[at as usize];
            (at != RING).then_some((entry.key, entry.value))
        })
    }

    /// Takes everything out: an empty table, which goes on with this one's version.
    pub(super) fn take(&mut self) -> Self {
        let mut empty = Self::new();
        empty.version = self.version + 1;
        std::mem::replace(self, empty)
    }
}
