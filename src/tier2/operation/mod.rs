//! One operation on one key: a state machine that its caller drives.

mod action;
mod generation;
mod load;
mod read;
mod write;

use super::frame::{self, Kind, Meta, Stamp};
use super::journal::Entry;
use super::namespace::Namespace;
use super::node::{Failure, Link};
use super::slots;
use super::tier::{RequestContext, State, Tier};
pub use action::{Action, Reply};
use read::Read;
use std::borrow::Cow;
use write::Phase;

/// What an operation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Read { load: bool },
    Touch { ttl: u64 },
    Write { ttl: u64 },
    Remove,
    Expire,
    Bump,
    Direct,
    Renewal { stamp: Stamp },
    Replay { number: u64, bump: bool },
}

/// Since when, by the local clock, a value is fresh, and for how many milliseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Lifetime {
    from: u64,
    ms: u64,
}

/// One operation on one key. Dropped before its end, it counts as not confirmed.
#[derive(Debug)]
pub struct Operation {
    tier: Tier,
    namespace: Option<Namespace>,
    purpose: Purpose,
    key: Box<[u8]>,
    tags: Vec<Box<[u8]>>,
    /// Which server has the key.
    node: u32,
    /// Which server the action is for: that of a generation, or of a late write, may be another
    /// one.
    place: u32,
    action: Action,
    /// The interrupted step, for which the node was unknown.
    resume: Option<Action>,
    moves: u32,
    // Operands.
    target: Option<Box<[u8]>>,
    expected: Vec<u8>,
    frame: Vec<u8>,
    px: u64,
    not_after: u64,
    soft_end: u64,
    /// What soft ends are made of.
    lifetime: Lifetime,
    /// The node whose times the command has.
    dated_for: u32,
    connection: u64,
    until: u64,
    /// As of the last command.
    request: RequestContext,
    // As of the last mark.
    marked_at: u64,
    changes: u64,
    /// The number of the key's journal entry that a confirmation settles.
    entry: Option<u64>,
    /// A PUT was sent and not answered: on which connection (0: not known).
    sent_on: Option<u64>,
    /// The node's epoch when it was sent.
    sent_epoch: u32,
    phase: Phase,
    read: Read,
    /// Generations that were read for this operation: name (none: the namespace's) and stamp.
    known: Vec<(Option<Box<[u8]>>, Stamp)>,
    /// What [`State::forgotten`] was before the first of them was read.
    collected: u64,
    meta: Meta,
    // Results.
    offset: usize,
    flags: u16,
    codec: u8,
    keep_until: u64,
    stored: bool,
}

impl Operation {
    fn new(tier: &Tier, namespace: Option<&Namespace>, purpose: Purpose, key: Box<[u8]>, node: u32) -> Self {
        Self {
            tier: tier.clone(),
            namespace: namespace.cloned(),
            purpose,
            key,
            tags: Vec::new(),
            node,
            place: node,
            action: Action::Probe,
            resume: None,
            moves: 0,
            target: None,
            expected: Vec::new(),
            frame: Vec::new(),
            px: 0,
            not_after: 0,
            soft_end: 0,
            lifetime: Lifetime::default(),
            dated_for: node,
            connection: 0,
            until: 0,
            request: RequestContext::default(),
            marked_at: 0,
            changes: 0,
            entry: None,
            sent_on: None,
            sent_epoch: 0,
            phase: Phase::Before,
            read: Read::default(),
            known: Vec::new(),
            collected: 0,
            meta: Meta {
                kind: Kind::Value,
                stamp: [0; 16],
                flags: 0,
                soft_end: 0,
                load_micros: 0,
                codec: 0,
                generation: [0; 16],
            },
            offset: 0,
            flags: 0,
            codec: 0,
            keep_until: 0,
            stored: false,
        }
    }

    /// Returns what to do.
    pub fn action(&self) -> Action {
        self.action
    }

    /// Returns the key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Returns the node that the action is for. Not always the key's: a generation, and a late
    /// write, may be elsewhere.
    #[allow(clippy::misnamed_getters)] // Callers care for the action's node, not for the key's.
    pub fn node(&self) -> u32 {
        self.place
    }

    /// Reports that the key of the command is on another node now. Called before [`Failure::Moved`]
    /// is reported.
    ///
    /// # Panics
    /// If the node's number is 4096 or more.
    pub fn set_node(&mut self, node: u32) {
        let tier = self.tier.clone();
        let mut state = tier.0.lock();
        state.node(node, &tier.0.settings);
        self.place = node;
        if self.action == Action::ReadGeneration {
            let namespace = self.namespace().0.number;
            let group = self.group(&state);
            state.set_generation_node(namespace, group, node);
        } else {
            self.node = node;
        }
    }

    /// Returns the key that the command names.
    pub fn target(&self) -> &[u8] {
        self.target.as_deref().unwrap_or(&self.key)
    }

    /// Returns what the server's value is compared with.
    pub fn expected(&self) -> &[u8] {
        &self.expected
    }

    /// Returns the new value, or a stamp.
    pub fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// Returns the new value's expiration in milliseconds.
    pub fn px(&self) -> u64 {
        self.px
    }

    /// Returns the server time in milliseconds after which the server has to refuse the write; 0:
    /// never.
    pub fn not_after(&self) -> u64 {
        self.not_after
    }

    /// Returns the server's time when the command was issued, in milliseconds, at least.
    pub(crate) fn server_ms(&self) -> u64 {
        let state = self.tier.0.lock();
        state.known(self.place).server_ms_upper(self.request.sent)
    }

    /// Returns the new soft end, server time in milliseconds.
    pub fn soft_end(&self) -> u64 {
        self.soft_end
    }

    /// Returns which connection to kill.
    pub fn connection(&self) -> u64 {
        self.connection
    }

    /// Returns until when to wait.
    pub fn until(&self) -> u64 {
        self.until
    }

    /// Returns whether the load has no lease, so that the number of such loads should be limited.
    pub fn is_limited(&self) -> bool {
        self.read.is_unleased()
    }

    /// Returns whether the value of the last reply may be served while the load runs.
    pub fn serves_stale(&self) -> bool {
        self.read.serves_stale
    }

    /// Returns where the payload begins in the last reply.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Returns the caller's flags of the last reply.
    pub fn flags(&self) -> u16 {
        self.flags
    }

    /// Returns the caller's codec of the last reply.
    pub fn codec(&self) -> u8 {
        self.codec
    }

    /// Returns until when tier 1 may keep the value; 0: not at all.
    pub fn keep_until(&self) -> u64 {
        self.keep_until
    }

    /// Returns whether tier 2 confirmed the value, and it is of the current generations as far as
    /// is known. Callers that joined the mark of [`Action::Fill`] or [`Action::Put`] get the value
    /// only then.
    pub fn is_stored(&self) -> bool {
        self.stored
    }

    /// Returns the new frame up to its payload; for [`Action::Fill`] and [`Action::Put`].
    pub fn head(&self, flags: u16, codec: u8) -> Vec<u8> {
        let meta = Meta {
            flags,
            codec,
            ..self.meta
        };
        let tags = self.tags.iter().map(|tag| {
            let known = self.known.iter().find(|(name, _)| name.as_ref() == Some(tag));
            (&**tag, known.map_or([0; 16], |(_, stamp)| *stamp))
        });
        frame::encode(&meta, tags)
    }

    /// Reports the connection on which [`Action::Put`] is about to be sent (0: not known). Without
    /// this call, it was not sent.
    pub fn sending(&mut self, connection: u64) {
        if self.action == Action::Put {
            self.sent_on = Some(connection);
            self.sent_epoch = self.tier.0.lock().known(self.place).epoch;
        }
    }

    /// The local action is done. Returns the next action.
    pub fn step(&mut self, now: u64) -> Action {
        let tier = self.tier.clone();
        let mut guard = tier.0.lock();
        let state = &mut *guard;
        match self.action {
            Action::Probe => match self.resume.take() {
                Some(action) if self.may_send(state, self.place) => self.issue_to(state, action, self.place, now),
                Some(_) => self.unavailable(state, now),
                None if matches!(state.known(self.place).link, Link::Unknown) => self.unavailable(state, now),
                None => self.begin(state, now),
            },
            Action::Wait => self.begin(state, now),
            Action::DropLocal => self.dropped(state, now),
            _ => {}
        }
        self.action
    }

    /// The server answered, by a connection of this epoch. Returns the next action.
    pub fn reply(&mut self, now: u64, epoch: u32, reply: Reply<'_>) -> Action {
        let tier = self.tier.clone();
        let mut guard = tier.0.lock();
        let state = &mut *guard;
        if !self.action.is_command() {
            return self.action;
        }
        tier.0.latency.record(now.saturating_sub(self.request.sent));
        let one = state.known(self.place);
        let current = self.request.epoch == epoch && one.epoch == epoch;
        if !current && state.rule(super::Rule::EpochOfReply) {
            tier.0.stats.outdated_replies.one();
            self.unanswered(state, Failure::Timeout, now);
            return self.action;
        }
        state.known_mut(self.place).answered();
        self.moves = 0;
        match self.purpose {
            Purpose::Read { .. } | Purpose::Touch { .. } => self.read_reply(state, reply, now),
            _ => self.write_reply(state, reply, now),
        }
        self.action
    }

    /// The command failed. Returns the next action.
    pub fn failed(&mut self, now: u64, failure: Failure) -> Action {
        let tier = self.tier.clone();
        let mut guard = tier.0.lock();
        let state = &mut *guard;
        if !self.action.is_command() {
            return self.action;
        }
        tier.0.count_failure(failure);
        if failure == Failure::Moved && self.moves < MAX_MOVES {
            self.moves += 1;
            self.sent_on = None;
            if state.known(self.place).link == Link::Unknown || self.may_send(state, self.place) {
                self.issue_to(state, self.action, self.place, now);
            } else {
                self.unanswered(state, Failure::Refused, now);
            }
            return self.action;
        }
        if state.known_mut(self.place).failed(failure, now) {
            tier.0.stats.breaker_opened.one();
        }
        state.publish(&tier.0);
        self.unanswered(state, failure, now);
        self.action
    }

    fn unanswered(&mut self, state: &mut State, failure: Failure, now: u64) {
        match self.purpose {
            Purpose::Read { .. } | Purpose::Touch { .. } => self.read_failed(state, failure, now),
            _ => self.write_failed(state, failure, now),
        }
    }

    /// The loader returned a value that is fresh for `ttl` nanoseconds (0: the namespace's
    /// setting).
    pub fn loaded(&mut self, now: u64, ttl: u64, kind: Kind) -> Action {
        let tier = self.tier.clone();
        if self.action == Action::Load {
            self.load_returned(&mut tier.0.lock(), ttl, kind, now);
        }
        self.action
    }

    /// The loader failed.
    pub fn load_failed(&mut self, now: u64) -> Action {
        let tier = self.tier.clone();
        if self.action == Action::Load {
            self.load_errored(&mut tier.0.lock(), now);
        }
        self.action
    }

    /// The payload of the last reply is no use: unknown codec, wrong signature.
    pub fn reject(&mut self, now: u64) -> Action {
        let tier = self.tier.clone();
        if matches!(self.action, Action::Hit | Action::NegativeHit | Action::Stale) {
            self.rejected(&mut tier.0.lock(), now);
        }
        self.action
    }

    /// The caller is gone: ends a read, and gives its lease back, so that others need not wait for
    /// the end of that. Returns the next action: a release, or an end. (Of other operations, which
    /// are dropped, it is left as it was.)
    pub fn give_up(&mut self, now: u64) -> Action {
        let tier = self.tier.clone();
        let is_read = matches!(self.purpose, Purpose::Read { .. });
        if is_read && !self.action.is_end() && self.action != Action::Release {
            self.release(&mut tier.0.lock(), read::After::End(Action::Failed), now);
        }
        self.action
    }

    // What all kinds share.

    fn namespace(&self) -> &Namespace {
        self.namespace
            .as_ref()
            .expect("renewals and replays have none, and do not come here")
    }

    /// Returns whether commands of this kind may be sent to the node now.
    fn may_send(&self, state: &State, node: u32) -> bool {
        let one = state.known(node);
        match self.purpose {
            Purpose::Read { .. } | Purpose::Touch { .. } | Purpose::Direct | Purpose::Renewal { .. } => one.is_up(),
            Purpose::Replay { .. } => matches!(one.link, Link::Up | Link::Replaying { .. }),
            _ if !state.rule(super::Rule::HalfOpen) => one.is_up(),
            _ => one.takes_writes(),
        }
    }

    fn begin(&mut self, state: &mut State, now: u64) {
        match self.purpose {
            Purpose::Read { .. } | Purpose::Touch { .. } => self.begin_read(state, now),
            _ => self.begin_write(state, now),
        }
    }

    fn unavailable(&mut self, state: &mut State, now: u64) {
        match self.purpose {
            Purpose::Read { .. } | Purpose::Touch { .. } => self.load_alone(state, now),
            _ => self.unconfirmed(state, now),
        }
    }

    /// Has the caller send a command to the key's node.
    fn issue(&mut self, state: &mut State, action: Action, now: u64) {
        self.issue_to(state, action, self.node, now);
    }

    fn issue_to(&mut self, state: &mut State, action: Action, node: u32, now: u64) {
        self.place = node;
        let one = state.known(node);
        if one.link == Link::Unknown {
            self.resume = Some(action);
            self.action = Action::Probe;
            return;
        }
        self.action = action;
        self.request = RequestContext {
            sent: now,
            epoch: one.epoch,
            changes: one.changes,
            forgotten: state.forgotten,
        };
        if action.is_marked() {
            self.marked(one.changes, now);
        }
        self.date(state);
    }

    /// Sets the times of the command, which are those of the server that it is for: servers' clocks
    /// differ.
    fn date(&mut self, state: &State) {
        let moved = self.place != self.dated_for && self.moves > 0;
        if moved && !state.rule(super::Rule::TimesByNode) {
            return;
        }
        self.dated_for = self.place;
        let one = state.known(self.place);
        let from = one.server_ms_lower(self.lifetime.from);
        match self.action {
            Action::Expire if one.clock_shift() > 0 && !self.serves_stale_values() => self.soft_end = 1,
            Action::Expire => self.soft_end = from.saturating_sub(one.clock_shift()),
            Action::Put | Action::Fill | Action::Touch => self.meta.soft_end = from.saturating_add(self.lifetime.ms),
            _ => return,
        }
        if self.action == Action::Touch {
            self.soft_end = self.meta.soft_end;
        }
        self.not_after = match self.action {
            Action::Put if !one.can_fence => from.saturating_add(millis(self.tier.0.settings.write_window)),
            _ => 0,
        };
    }

    fn serves_stale_values(&self) -> bool {
        let settings = &self.namespace().0.settings;
        settings.stale_while_revalidate.max(settings.stale_if_error) > 0
    }

    /// Has the caller connect to the key's node, of which nothing is known.
    fn probe(&mut self) {
        self.place = self.node;
        self.action = Action::Probe;
    }

    /// A value that enters tier 1 was requested at `now` or later.
    fn marked(&mut self, changes: u64, now: u64) {
        self.changes = changes;
        self.marked_at = now;
    }

    /// Returns whether the key, or a generation that it depends on, is in the journal.
    fn is_blocked(&self, state: &State) -> bool {
        if state.journal.len() == 0 || !state.rule(super::Rule::JournalBlocks) {
            return false;
        }
        self.journal_keys(state).any(|key| state.journal.get(&key).is_some())
    }

    /// Returns the key, and those of all generations that its value depends on.
    fn journal_keys<'s>(&'s self, state: &'s State) -> impl Iterator<Item = Cow<'s, [u8]>> {
        let tags = self.tags.iter().map(|tag| &**tag).chain(self.read.tags());
        let generations = std::iter::once(None).chain(tags.map(Some));
        std::iter::once(Cow::Borrowed(&*self.key)).chain(generations.map(|tag| self.generation_key(state, tag)))
    }

    /// Replays the entries that block this operation on this node, if the node of the replay does
    /// not answer.
    fn assign_node(&self, state: &mut State) {
        let keys: Vec<_> = self.journal_keys(state).map(Cow::into_owned).collect();
        keys.iter().for_each(|key| state.assign_node(key, self.node));
    }

    /// Describes the frame of a new value.
    fn prepare(&mut self, state: &mut State, ttl: u64, kind: Kind, load_nanos: u64, now: u64) {
        let settings = self.namespace().0.settings;
        let grace = settings.stale_while_revalidate.max(settings.stale_if_error);
        self.meta.kind = kind;
        self.meta.stamp = state.stamp();
        self.lifetime = Lifetime {
            from: now,
            ms: millis(ttl),
        };
        self.meta.load_micros = u32::try_from(load_nanos / 1_000).unwrap_or(u32::MAX);
        self.px = millis(ttl.saturating_add(grace)).max(1);
    }
}

/// How often a command may be redirected before it counts as failed.
const MAX_MOVES: u32 = 4;

fn millis(nanos: u64) -> u64 {
    nanos / super::node::MILLI
}

impl Operation {
    pub(crate) fn renewal(tier: &Tier, node: u32, key: Box<[u8]>, stamp: Stamp, px: u64, now: u64) -> Self {
        let mut this = Self::new(tier, None, Purpose::Renewal { stamp }, key, node);
        let lease = frame::head(Kind::Lease, stamp, 0);
        this.expected = lease.to_vec();
        this.frame = lease.to_vec();
        this.px = px;
        tier.0.stats.renewals.one();
        this.issue(&mut tier.0.lock(), Action::Swap, now);
        this
    }

    pub(crate) fn replay(tier: &Tier, node: u32, key: Box<[u8]>, entry: &Entry, now: u64) -> Self {
        let purpose = Purpose::Replay {
            number: entry.number,
            bump: entry.bump,
        };
        let mut this = Self::new(tier, None, purpose, key, node);
        this.begin_write(&mut tier.0.lock(), now);
        this
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if self.action.is_end() {
            return;
        }
        let tier = self.tier.clone();
        let mut guard = tier.0.lock();
        match self.purpose {
            Purpose::Read { .. } | Purpose::Touch { .. } => self.end_lease(&mut guard),
            _ => self.abandon_write(&mut guard),
        }
    }
}
