//! The generations that this process knows, and the keys that hold them.

use super::NamespaceSettings;
use super::frame::Stamp;
use super::node::Retention;
use super::slots::{SLOTS, slot};
use super::stats::TierStats;
use super::tier::{RequestContext, State};
use std::borrow::Cow;

/// A generation as this process knows it.
#[derive(Debug)]
pub(super) struct Generation {
    stamp: Stamp,
    /// Which server answered, when it was asked, and what [`Node::changes`] was then.
    node: u32,
    sent: u64,
    changes: u64,
}

/// A namespace of the tier.
#[derive(Debug)]
pub(super) struct Registered {
    pub(super) settings: NamespaceSettings,
    pub(super) generations: Vec<GenerationKey>,
}

/// The key of a generation, and which server has it, as far as is known.
#[derive(Debug)]
pub(super) struct GenerationKey {
    pub(super) key: Box<[u8]>,
    pub(super) node: Option<u32>,
}

impl State {
    pub(crate) fn register(&mut self, settings: NamespaceSettings) -> usize {
        self.namespaces.push(Registered {
            settings,
            generations: Vec::new(),
        });
        self.namespaces.len() - 1
    }

    pub(crate) fn set_generations(&mut self, namespace: usize, keys: &[&[u8]], stats: &TierStats) {
        let one = &mut self.namespaces[namespace];
        let is_same = one.generations.len() == keys.len()
            && one.generations.iter().zip(keys).all(|(known, key)| *known.key == **key);
        if is_same {
            return;
        }
        let new = keys.iter().map(|&key| GenerationKey {
            key: key.into(),
            node: None,
        });
        let old = std::mem::replace(&mut one.generations, new.collect());
        let all = self.namespaces.iter().flat_map(|one| &one.generations);
        self.generation_prefix = all
            .fold(None, |prefix: Option<&[u8]>, one| {
                let common = prefix.map_or(one.key.len(), |prefix| {
                    prefix.iter().zip(&one.key).take_while(|(a, b)| a == b).count()
                });
                Some(&one.key[..common])
            })
            .map(Into::into);
        self.forget_generations();
        // What was bumped under the old keys, and not confirmed, is bumped under the new ones.
        let mut bumped = Vec::new();
        for one in &old {
            self.journal.for_each_bump(|key| {
                if let Some(tag) = key.strip_prefix(&*one.key) {
                    bumped.extend(keys.iter().map(|new| [*new, tag].concat()));
                }
            });
        }
        for key in bumped {
            self.journal(&key, 0, true, None, stats);
        }
    }

    /// Returns how many generations a namespace has.
    pub(crate) fn groups(&self, namespace: usize) -> u32 {
        self.namespaces[namespace].generations.len() as u32
    }

    /// Returns the place of the generation that a key's value carries.
    pub(crate) fn group_of(&self, namespace: usize, key: &[u8]) -> u32 {
        match self.groups(namespace) {
            0 | 1 => 0,
            groups => u32::from(slot(key)) * groups / u32::from(SLOTS),
        }
    }

    /// Returns the key of a generation: the namespace's, or that of a tag.
    pub(crate) fn generation_key(&self, namespace: usize, group: u32, tag: Option<&[u8]>) -> Option<Cow<'_, [u8]>> {
        let key = &self.namespaces[namespace].generations.get(group as usize)?.key;
        Some(match tag {
            None => Cow::Borrowed(key),
            Some(tag) => Cow::Owned([key, &b":"[..], tag].concat()),
        })
    }

    /// Returns which server has a generation, if that is known.
    pub(crate) fn generation_node(&self, namespace: usize, group: u32) -> Option<u32> {
        self.namespaces[namespace].generations.get(group as usize)?.node
    }

    /// Remembers which server has a generation.
    pub(crate) fn set_generation_node(&mut self, namespace: usize, group: u32, node: u32) {
        if let Some(one) = self.namespaces[namespace].generations.get_mut(group as usize) {
            one.node = Some(node);
        }
    }

    /// Returns whether a key is that of a generation.
    pub(crate) fn is_generation(&self, key: &[u8]) -> bool {
        let Some(prefix) = &self.generation_prefix else {
            return false;
        };
        key.starts_with(prefix) && {
            let mut all = self.namespaces.iter().flat_map(|one| &one.generations);
            all.any(|generation| key.starts_with(&generation.key))
        }
    }

    /// Returns how long a value of the node may stay in tier 1 at most; `None`: not at all.
    pub(crate) fn bound(&self, namespace: usize, node: u32) -> Option<u64> {
        let settings = &self.namespaces[namespace].settings;
        match self.known(node).retention() {
            Retention::Nowhere => None,
            Retention::Synced | Retention::Alone => Some(settings.local_ttl),
            Retention::Unsynced => Some(settings.unsynced_ttl.min(settings.local_ttl)),
        }
    }

    /// Returns a generation that is known to be the current one, and since when.
    pub(crate) fn generation(&self, namespace: usize, key: &[u8], now: u64) -> Option<(Stamp, u64)> {
        let known = self.generations.get(key)?;
        let one = self.known(known.node);
        let bound = self.bound(namespace, known.node)?;
        if known.changes != one.changes {
            return None;
        }
        // While messages are known to arrive, a generation was the current one when the last canary
        // was sent.
        let since = match one.retention() {
            Retention::Synced => known.sent.max(one.bus.synced_at),
            _ => known.sent,
        };
        (now <= since.saturating_add(bound)).then_some((known.stamp, since))
    }

    /// Remembers a generation that `node` answered; `request` is how things were when it was asked.
    pub(crate) fn learn(&mut self, node: u32, key: &[u8], stamp: Stamp, request: &RequestContext) {
        if request.forgotten != self.forgotten || self.bumping.contains_key(key) || self.journal.get(key).is_some() {
            return;
        }
        if !self.rule(super::Rule::UniqueGenerations) {
            self.counted.insert(key.into(), stamp);
        }
        let changes = if self.rule(super::Rule::GenerationWhenSent) {
            request.changes
        } else {
            self.known(node).changes
        };
        let generation = Generation {
            stamp,
            node,
            sent: request.sent,
            changes,
        };
        self.generations.insert(key.into(), generation);
    }

    pub(crate) fn forget_generation(&mut self, key: &[u8]) -> bool {
        self.forgotten += 1;
        self.generations.remove(key).is_some()
    }

    pub(crate) fn forget_generations(&mut self) {
        self.forgotten += 1;
        self.generations.clear();
    }

    /// What a counter would be after an increment: for the simulation alone.
    pub(crate) fn next_count(&self, key: &[u8]) -> Option<Stamp> {
        let mut stamp = *self.counted.get(key)?;
        stamp[0] = stamp[0].wrapping_add(1);
        Some(stamp)
    }

    pub(crate) fn begin_bump(&mut self, key: &[u8]) {
        self.forget_generation(key);
        *self.bumping.entry(key.into()).or_default() += 1;
    }

    pub(crate) fn end_bump(&mut self, key: &[u8]) {
        self.forget_generation(key);
        if let Some(count) = self.bumping.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.bumping.remove(key);
            }
        }
    }
}
