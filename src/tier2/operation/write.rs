//! Writes, removals, soft expirations, bumps, replays and renewals.
//!
//! Tier 1 drops the key before and after the command: a reader in between may have read, and kept,
//! what the command replaced.

use super::super::Rule;
use super::super::frame::{Kind, Stamp};
use super::super::journal::{LateWrite, LateWriteEnd};
use super::super::node::{Failure, Link, MILLI};
use super::super::tier::State;
use super::generation::first_count;
use super::{Action, Lifetime, Namespace, Operation, Purpose, Reply};

/// How long a key waits for a late write that can neither be fenced nor refused by the server, in
/// milliseconds.
const UNFENCED: u64 = 60_000;
/// How long after a failed replay or renewal the next one is tried.
const RETRY: u64 = 50 * MILLI;

/// Where a write is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Tier 1 drops the key for the first time.
    Before,
    Command,
    /// The server refused the new value; the old one is being removed.
    Removing,
    /// Tier 1 drops the key for the second time, then the operation has ended so.
    After(Action),
}

impl Operation {
    fn changing(of: &Namespace, purpose: Purpose, key: Box<[u8]>, node: u32) -> Self {
        let mut this = Self::new(of.tier(), Some(of), purpose, key, node);
        let mut state = of.tier().0.lock();
        state.node(node, &of.tier().0.settings);
        assert!(
            state.groups(of.0.number) > 0,
            "the namespace's generations are set before its first operation"
        );
        this.action = Action::DropLocal;
        this
    }

    pub(crate) fn write(of: &Namespace, key: &[u8], node: u32, _: u64, ttl: u64, tags: Vec<Box<[u8]>>) -> Self {
        let ttl = if ttl == 0 { of.0.settings.ttl } else { ttl };
        let mut this = Self::changing(of, Purpose::Write { ttl }, key.into(), node);
        this.tags = tags;
        this
    }

    pub(crate) fn remove(of: &Namespace, key: &[u8], node: u32, _: u64) -> Self {
        Self::changing(of, Purpose::Remove, key.into(), node)
    }

    pub(crate) fn expire(of: &Namespace, key: &[u8], node: u32, _: u64) -> Self {
        Self::changing(of, Purpose::Expire, key.into(), node)
    }

    pub(crate) fn bump(of: &Namespace, tag: Option<&[u8]>, group: u32, node: u32, _: u64) -> Self {
        let mut this = Self::changing(of, Purpose::Bump, [].into(), node);
        let mut state = of.tier().0.lock();
        let key = state.generation_key(of.0.number, group, tag);
        this.key = key.expect("a generation of the namespace").into();
        if state.rule(Rule::BumpTwice) {
            state.begin_bump(&this.key);
        }
        drop(state);
        this
    }

    pub(crate) fn direct(of: &Namespace, key: &[u8], node: u32, now: u64) -> Self {
        let mut this = Self::changing(of, Purpose::Direct, key.into(), node);
        this.phase = Phase::Command;
        this.begin_write(&mut of.tier().0.lock(), now);
        this
    }

    /// Tier 1 dropped the key.
    pub(super) fn dropped(&mut self, state: &mut State, now: u64) {
        match self.phase {
            Phase::After(end) => self.action = end,
            _ if matches!(self.purpose, Purpose::Touch { .. }) => self.action = Action::Done,
            _ => {
                self.phase = Phase::Command;
                self.begin_write(state, now);
            }
        }
    }

    pub(super) fn begin_write(&mut self, state: &mut State, now: u64) {
        if state.known(self.node).link == Link::Unknown {
            return self.probe();
        }
        let replays = matches!(self.purpose, Purpose::Replay { .. });
        if !self.may_send(state, self.node) || (!replays && self.namespace_is_blocked(state)) {
            return self.unconfirmed(state, now);
        }
        self.target = None;
        if self.purpose != Purpose::Direct
            && let Some(entry) = state.journal.get(&self.key)
        {
            let killed = |late: &LateWrite| match late.until {
                LateWriteEnd::Killed(connection) => Some((late.node, connection)),
                LateWriteEnd::Server(_) => None,
            };
            if let Some((node, connection)) = entry.late_writes.iter().find_map(killed)
                && state.rule(Rule::Fence)
            {
                self.connection = connection;
                let node = if state.rule(Rule::LateWriteByNode) {
                    node
                } else {
                    self.node
                };
                let answers = matches!(state.known(node).link, Link::Up | Link::Replaying { .. });
                if node == self.node || answers {
                    return self.issue_to(state, Action::Fence, node, now);
                }
                // The key has moved, and its previous server does not answer.
                return self.cannot_fence(state, node, now);
            }
            if state.is_held(entry, now) {
                return self.unconfirmed(state, now);
            }
            self.entry = Some(entry.number);
        }
        match self.purpose {
            Purpose::Write { ttl } => {
                if self.collect_generations(state, now) {
                    return;
                }
                self.prepare(state, ttl, Kind::Value, 0, now);
                self.issue(state, Action::Put, now);
            }
            Purpose::Expire => {
                self.frame = state.stamp().to_vec();
                self.lifetime = Lifetime { from: now, ms: 0 };
                self.issue(state, Action::Expire, now);
            }
            Purpose::Bump | Purpose::Replay { bump: true, .. } => {
                self.frame = self.bumped(state).to_vec();
                self.issue(state, Action::Bump, now);
            }
            Purpose::Direct => self.issue(state, Action::Direct, now),
            _ => self.issue(state, Action::Remove, now),
        }
    }

    fn bumped(&self, state: &mut State) -> Stamp {
        if state.rule(Rule::UniqueGenerations) {
            state.stamp()
        } else {
            state.next_count(&self.key).unwrap_or(first_count())
        }
    }

    fn namespace_is_blocked(&self, state: &State) -> bool {
        if self.purpose == Purpose::Bump || state.journal.len() == 0 {
            return false;
        }
        let key = self.generation_key(state, None);
        state.journal.get(&key).is_some()
    }

    /// Nothing can be said about the late write but that it will not be late for ever.
    fn cannot_fence(&mut self, state: &mut State, node: u32, now: u64) {
        let until = state.known(node).server_ms_upper(now).saturating_add(UNFENCED);
        state.journal.hold(&self.key, node, self.connection, until);
        self.unconfirmed(state, now);
    }

    pub(super) fn write_reply(&mut self, state: &mut State, reply: Reply<'_>, now: u64) {
        match (self.action, reply) {
            (Action::Fence, Reply::Flag(_)) => {
                self.tier.0.stats.fences.one();
                let node = state.rule(Rule::LateWriteByNode).then_some(self.place);
                state.journal.fenced(&self.key, node, self.connection);
                self.begin_write(state, now);
            }
            (Action::ReadGeneration, Reply::Value(value)) => {
                if self.learn_generation(state, value) {
                    self.begin_write(state, now);
                } else {
                    self.unconfirmed(state, now);
                }
            }
            (Action::Swap, Reply::Flag(held)) => self.renewed(state, Some(held), now),
            (Action::Put, Reply::Flag(false)) => {
                // Too late by the server's clock: it executed nothing.
                self.sent_on = None;
                self.unconfirmed(state, now);
            }
            (Action::Direct, Reply::Flag(done)) => {
                self.stored = done;
                self.action = Action::Done;
            }
            (Action::Put | Action::Remove | Action::Expire | Action::Bump, Reply::Flag(_)) => {
                self.confirmed(state, now)
            }
            _ => self.write_failed(state, Failure::Other, now),
        }
    }

    fn confirmed(&mut self, state: &mut State, now: u64) {
        let bump = self.action == Action::Bump;
        self.sent_on = None;
        state.journal.confirm(&self.key, self.node, bump, now);
        if let Purpose::Replay { number, .. } = self.purpose {
            if bump {
                state.forget_generation(&self.key);
            }
            if state.journal.remove_confirmed(&self.key, number) {
                self.tier.0.stats.replayed.one();
            }
            let one = state.known_mut(self.node);
            if let Link::Replaying { confirmed } = &mut one.link {
                *confirmed = true;
            }
            self.action = Action::Done;
            return;
        }
        if let Some(number) = self.entry {
            state.journal.remove_confirmed(&self.key, number);
        }
        let stats = &self.namespace().0.stats;
        if let Purpose::Write { ttl } = self.purpose {
            if self.phase == Phase::Removing {
                return self.drop_again(Action::Done);
            }
            stats.writes.one();
            self.stored = true;
            self.keep_until = self.keep_written(state, ttl, now);
            self.action = Action::Done;
            return;
        }
        stats.removals.one();
        self.stored = true;
        if bump && state.rule(Rule::BumpTwice) {
            state.end_bump(&self.key);
        }
        self.drop_again(Action::Done);
    }

    fn drop_again(&mut self, end: Action) {
        self.phase = Phase::After(end);
        self.action = Action::DropLocal;
    }

    pub(super) fn write_failed(&mut self, state: &mut State, failure: Failure, now: u64) {
        if failure.is_definite() && self.action == Action::Put {
            self.sent_on = None;
        }
        match (self.action, self.purpose) {
            (Action::Fence, _) if failure.is_refusal() => {
                state.known_mut(self.place).can_fence = false;
                self.cannot_fence(state, self.place, now);
            }
            (Action::Put, Purpose::Write { .. }) if failure.is_refusal() => {
                // Not stored, and the old value is there: it must not stay.
                self.phase = Phase::Removing;
                self.issue(state, Action::Remove, now);
            }
            (_, Purpose::Renewal { .. }) => self.renewed(state, None, now),
            _ => self.unconfirmed(state, now),
        }
    }

    /// Tier 2 did not confirm: the key waits in the journal.
    pub(super) fn unconfirmed(&mut self, state: &mut State, now: u64) {
        match self.purpose {
            Purpose::Replay { number, .. } => {
                state.journal.set_replaying(&self.key, number, false);
                // The key may have moved: then it is that node's.
                state.journal.assign_node(&self.key, self.node);
                state.known_mut(self.node).replay_at = now.saturating_add(RETRY);
                self.action = Action::Unconfirmed;
                return;
            }
            Purpose::Renewal { .. } => return self.renewed(state, None, now),
            Purpose::Direct => {
                self.action = Action::Unconfirmed;
                return;
            }
            _ => {}
        }
        self.namespace().0.stats.unconfirmed.one();
        self.enter_journal(state, now);
        self.drop_again(Action::Unconfirmed);
    }

    fn enter_journal(&mut self, state: &mut State, now: u64) {
        let one = state.known(self.node);
        let sent_on = self.sent_on.take().filter(|_| self.sent_epoch == one.epoch);
        let late = sent_on.map(|connection| LateWrite {
            node: self.node,
            until: match connection {
                _ if self.not_after != 0 => LateWriteEnd::Server(self.not_after),
                0 => LateWriteEnd::Server(one.server_ms_upper(now).saturating_add(UNFENCED)),
                _ => LateWriteEnd::Killed(connection),
            },
        });
        let bump = self.purpose == Purpose::Bump;
        if bump && state.rule(Rule::BumpTwice) {
            state.end_bump(&self.key);
        }
        if state.rule(Rule::JournalReplays) {
            let tier = self.tier.clone();
            state.journal(&self.key, self.node, bump, late, &tier.0.stats);
        }
    }

    /// A lease was renewed (or was gone), or nothing is known.
    fn renewed(&mut self, state: &mut State, held: Option<bool>, now: u64) {
        let Purpose::Renewal { stamp } = self.purpose else {
            return;
        };
        self.action = if held.is_some() {
            Action::Done
        } else {
            Action::Unconfirmed
        };
        let Some(lease) = state.leases.get_mut(&stamp) else {
            return;
        };
        lease.renewing = false;
        match held {
            Some(true) => {
                lease.renew_at = self.request.sent.saturating_add(lease.px * MILLI / 3);
                // The lease may have moved.
                lease.node = self.node;
            }
            Some(false) => {
                self.tier.0.stats.leases_lost.one();
                state.leases.remove(&stamp);
            }
            None => lease.renew_at = now.saturating_add(RETRY),
        }
    }

    /// Dropped before its end.
    pub(super) fn abandon_write(&mut self, state: &mut State) {
        match (self.purpose, self.phase) {
            (Purpose::Direct, _) | (_, Phase::After(_)) => {}
            (Purpose::Replay { number, .. }, _) => state.journal.set_replaying(&self.key, number, false),
            (Purpose::Renewal { stamp }, _) => {
                if let Some(lease) = state.leases.get_mut(&stamp) {
                    lease.renewing = false;
                }
            }
            _ => self.enter_journal(state, self.request.sent),
        }
    }
}
