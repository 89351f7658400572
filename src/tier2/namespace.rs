//! One cache on a tier.

use super::operation::Operation;
use super::stats::NamespaceStats;
use super::tier::Tier;
use super::{MAX_TAGS, NamespaceSettings};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) tier: Tier,
    pub(crate) number: usize,
    pub(crate) settings: NamespaceSettings,
    pub(crate) stats: NamespaceStats,
    /// How long the last load took, nanoseconds.
    pub(crate) last_load: AtomicU64,
}

/// One cache on a [`Tier`]: settings, generation, statistics.
#[derive(Clone, Debug)]
pub struct Namespace(pub(crate) Arc<Inner>);

impl Namespace {
    /// Creates a namespace, which exists as long as the tier does.
    pub fn new(tier: &Tier, settings: NamespaceSettings) -> Self {
        let number = tier.0.lock().register(settings);
        let (tier, stats, last_load) = (tier.clone(), NamespaceStats::default(), AtomicU64::new(0));
        Self(Arc::new(Inner {
            tier,
            number,
            settings,
            stats,
            last_load,
        }))
    }

    /// Sets the keys that hold the namespace's generations: the first one for the first of as many
    /// equal ranges of slots, and so on. The generation of a tag is this key, a colon, and the tag.
    ///
    /// A single server needs one. In a cluster each key is in the first slot of its range, so that
    /// values and their generation are mostly on one server. All processes that share the namespace
    /// must have the same keys, whatever they know of the cluster. With
    /// [`Settings::generation_per_node`](super::Settings), the first one is that of node 0, and so
    /// on.
    ///
    /// # Panics
    /// If there are none, or more than [`SLOTS`](super::SLOTS).
    pub fn set_generations(&self, keys: &[&[u8]]) {
        assert!(
            (1..=super::SLOTS.into()).contains(&keys.len()),
            "one generation, or more"
        );
        let mut state = self.0.tier.0.lock();
        state.set_generations(self.0.number, keys, &self.0.tier.0.stats);
        if self.0.tier.0.settings.generation_per_node {
            for node in 0..keys.len() as u32 {
                state.set_generation_node(self.0.number, node, node);
            }
        }
    }

    /// Returns how many generations the namespace has: 0 before [`Self::set_generations`].
    pub fn generations(&self) -> u32 {
        self.0.tier.0.lock().groups(self.0.number)
    }

    /// Returns the tier.
    pub fn tier(&self) -> &Tier {
        &self.0.tier
    }

    /// Returns the counters.
    pub fn stats(&self) -> &NamespaceStats {
        &self.0.stats
    }

    /// Begins to read `key`; with `load`, to load it if there is no value. `tags` are those of a
    /// value that is loaded.
    ///
    /// # Panics
    /// As all operations do: if no generations are set, or there are more than [`MAX_TAGS`] tags,
    /// or one of more than 255 bytes.
    pub fn read(&self, key: &[u8], node: u32, now: u64, load: bool, tags: &[&[u8]]) -> Operation {
        Operation::read(self, key, node, now, load, checked(tags))
    }

    /// Begins to write a value of `ttl` nanoseconds; 0: the namespace's.
    pub fn write(&self, key: &[u8], node: u32, now: u64, ttl: u64, tags: &[&[u8]]) -> Operation {
        Operation::write(self, key, node, now, ttl, checked(tags))
    }

    /// Begins to remove `key` everywhere.
    pub fn remove(&self, key: &[u8], node: u32, now: u64) -> Operation {
        Operation::remove(self, key, node, now)
    }

    /// Begins to expire `key` everywhere: its value may be served stale.
    pub fn expire(&self, key: &[u8], node: u32, now: u64) -> Operation {
        Operation::expire(self, key, node, now)
    }

    /// Begins to give the value of `key` a new ttl.
    pub fn touch(&self, key: &[u8], node: u32, now: u64, ttl: u64) -> Operation {
        Operation::touch(self, key, node, now, ttl)
    }

    /// Begins to invalidate all values of a generation, or those of them with the tag. `group` is
    /// the generation's place in [`Self::set_generations`], and `node` has its key.
    ///
    /// # Panics
    /// If there is no such generation.
    pub fn bump(&self, tag: Option<&[u8]>, group: u32, node: u32, now: u64) -> Operation {
        Operation::bump(self, tag, group, node, now)
    }

    /// Begins a command of the caller's own, on tier 2 alone.
    pub fn direct(&self, key: &[u8], node: u32, now: u64) -> Operation {
        Operation::direct(self, key, node, now)
    }

    /// How long a lease of the next load should be: at least twice what the last load took, for
    /// loaders that keep the thread that renews from running.
    pub(crate) fn lease(&self, by_load: bool) -> u64 {
        // Relaxed: an estimate.
        let last = if by_load {
            self.0.last_load.load(Ordering::Relaxed)
        } else {
            0
        };
        let settings = &self.0.settings;
        settings
            .lease
            .max(last.saturating_mul(2))
            .min(settings.load_timeout)
            .max(1_000_000)
    }
}

fn checked(tags: &[&[u8]]) -> Vec<Box<[u8]>> {
    assert!(
        tags.len() <= MAX_TAGS,
        "{} tags, at most {MAX_TAGS} are allowed",
        tags.len()
    );
    let long = tags.iter().find(|tag| tag.len() > 255);
    assert!(long.is_none(), "a tag of more than 255 bytes");
    tags.iter().map(|&tag| tag.into()).collect()
}
