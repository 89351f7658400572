//! Generations: which one a value carries, whether it is the current one, and how long tier 1 may
//! keep a value of it.

use super::super::Rule;
use super::super::frame::Stamp;
use super::super::node::{Link, Role};
use super::super::tier::State;
use super::{Action, Operation};
use std::borrow::Cow;

impl Operation {
    /// Returns the place of the generation that the key's value carries.
    pub(super) fn group(&self, state: &State) -> u32 {
        if self.tier.0.settings.generation_per_node {
            return self.node;
        }
        state.group_of(self.namespace().0.number, &self.key)
    }

    pub(super) fn generation_key<'s>(&self, state: &'s State, tag: Option<&[u8]>) -> Cow<'s, [u8]> {
        let key = state.generation_key(self.namespace().0.number, self.group(state), tag);
        key.expect("the namespace's generations are set before its first operation")
    }

    /// Returns a generation of this operation's value: as it was read just now, or as it is known
    /// to be.
    pub(super) fn generation(&self, state: &State, tag: Option<&[u8]>, now: u64) -> Option<Stamp> {
        let read = self.known.iter().find(|(name, _)| name.as_deref() == tag);
        if let Some((_, stamp)) = read {
            return Some(*stamp);
        }
        let key = self.generation_key(state, tag);
        let known = state.generation(self.namespace().0.number, &key, now);
        known.map(|(stamp, _)| stamp)
    }

    /// Remembers the generations that a new value carries. Returns whether one of them has to be
    /// read first.
    pub(super) fn collect_generations(&mut self, state: &mut State, now: u64) -> bool {
        for at in 0..=self.tags.len() {
            let tag = at.checked_sub(1).map(|at| self.tags[at].clone());
            if self.known.iter().any(|(name, _)| *name == tag) {
                continue;
            }
            let Some(stamp) = self.generation(state, tag.as_deref(), now) else {
                self.read_generation(state, tag, now);
                return true;
            };
            self.known.push((tag, stamp));
        }
        let own = self.known.iter().find(|(name, _)| name.is_none());
        self.meta.generation = own.map_or([0; 16], |(_, stamp)| *stamp);
        false
    }

    pub(super) fn forget_known(&mut self, state: &State) {
        self.known.clear();
        self.collected = state.forgotten;
    }

    pub(super) fn read_generation(&mut self, state: &mut State, tag: Option<Box<[u8]>>, now: u64) {
        self.target = Some(self.generation_key(state, tag.as_deref()).into());
        self.frame = if state.rule(Rule::UniqueGenerations) {
            state.stamp()
        } else {
            first_count()
        }
        .to_vec();
        self.read.requested_tag = tag;
        let known = state.generation_node(self.namespace().0.number, self.group(state));
        // One that has no slots any more has been replaced by another node, which may be any.
        let serves = |node: &u32| state.known(*node).role == Role::Serving || !state.rule(Rule::GenerationFollows);
        let node = known.filter(serves).unwrap_or(self.node);
        if state.known(node).link != Link::Unknown && !self.may_send(state, node) {
            self.target = None;
            return self.unavailable(state, now);
        }
        self.issue_to(state, Action::ReadGeneration, node, now);
    }

    /// The answer to `ReadGeneration`. Returns whether it was a generation.
    pub(super) fn learn_generation(&mut self, state: &mut State, value: Option<&[u8]>) -> bool {
        let target = self.target.take().expect("set by `read_generation`");
        let stamp = value.unwrap_or(&self.frame);
        let Ok(stamp) = Stamp::try_from(stamp) else {
            // Another program's value, which a bump replaces.
            self.namespace().0.stats.malformed.one();
            let tier = self.tier.clone();
            state.journal(&target, self.place, true, None, &tier.0.stats);
            return false;
        };
        state.learn(self.place, &target, stamp, &self.request);
        self.known.push((self.read.requested_tag.take(), stamp));
        true
    }

    /// Returns until when tier 1 may keep a value of these generations; `fresh` is how long it is.
    pub(super) fn keep_read(&self, state: &State, fresh: u64, generations: &[(Option<&[u8]>, Stamp)], now: u64) -> u64 {
        let one = state.known(self.node);
        let number = self.namespace().0.number;
        let unchanged = self.changes == one.changes;
        if self.is_blocked(state) || (!unchanged && state.rule(Rule::ArmedWhenSent)) {
            return 0;
        }
        let Some(bound) = state.bound(number, self.node) else {
            return 0;
        };
        let mut until = self.marked_at.saturating_add(bound).min(now.saturating_add(fresh));
        for (tag, stamp) in generations {
            let key = self.generation_key(state, *tag);
            match state.generation(number, &key, now) {
                Some((known, since)) if known == *stamp => until = until.min(since.saturating_add(bound)),
                _ => return 0,
            }
        }
        until
    }

    /// The same for a value that this operation wrote.
    pub(super) fn keep_written(&self, state: &State, ttl: u64, now: u64) -> u64 {
        let fresh = self.marked_at.saturating_add(ttl).saturating_sub(now);
        let generations: Vec<_> = self.known.iter().map(|(tag, stamp)| (tag.as_deref(), *stamp)).collect();
        self.keep_read(state, fresh, &generations, now)
    }
}

/// Where generations count, as they must not.
pub(super) fn first_count() -> Stamp {
    let mut stamp = [0; 16];
    stamp[0] = 1;
    stamp
}
