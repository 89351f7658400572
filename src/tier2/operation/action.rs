//! What an operation asks its caller to do, and what the server answered.

/// What the caller of an operation has to do next. Operands are the operation's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Action {
    /// Marked. GET `target`: [`Reply::Value`].
    Get = 1,
    /// SET `target` `frame` NX GET PX `px`: the old value, [`Reply::Value`].
    Acquire,
    /// If the first 24 bytes of `target` (all of a shorter value) are `expected`: SET `target`
    /// `frame` PX `px`. [`Reply::Flag`].
    Swap,
    /// Marked. The same with `head()` and the payload as the new value.
    Fill,
    /// Marked. SET `target` to `head()` and the payload, PX `px`; with `not_after` refused once
    /// server time is past that. [`Reply::Flag`]. [`Operation::sending`](super::Operation::sending)
    /// is called first.
    Put,
    /// If `target` is `expected`: UNLINK `target`. [`Reply::Flag`].
    Release,
    /// UNLINK `target`; if there was nothing: SET `target` '', UNLINK `target`, so that a message
    /// is sent. [`Reply::Flag`].
    Remove,
    /// If `target` holds a value frame: overwrite its stamp by `frame` and its soft end by
    /// `soft_end`. Else as `Remove`.
    Expire,
    /// If the first 24 bytes are `expected`: overwrite stamp and soft end, PEXPIRE `px`.
    /// [`Reply::Flag`].
    Touch,
    /// SET `target` `frame`. [`Reply::Flag`].
    Bump,
    /// SET `target` `frame` NX GET: the old value, [`Reply::Value`].
    ReadGeneration,
    /// Marked. SET `target` `frame` NX PX `px`, and GET `key`, of the same slot, in one packet:
    /// [`Reply::Claim`].
    Claim,
    /// Kill `connection` through another connection to the same node, and await the answer.
    /// [`Reply::Flag`].
    Fence,
    /// The caller's own command. [`Reply::Flag`].
    Direct,
    /// Connect to `node` ([`Tier::probed`](crate::tier2::Tier::probed) or
    /// [`Tier::probe_failed`](crate::tier2::Tier::probe_failed)), then
    /// [`Operation::step`](super::Operation::step).
    Probe = 32,
    /// Call the loader, then [`Operation::loaded`](super::Operation::loaded) or
    /// [`Operation::load_failed`](super::Operation::load_failed).
    Load,
    /// Wait until `until`, a message for the key, or the end of another operation on it in this
    /// process; then `step`. A caller that leads the load of another key finishes that first.
    Wait,
    /// Remove the key from tier 1 (of a bump: all that carries the generation) and invalidate its
    /// loads; then `step`.
    DropLocal,
    /// The value is in the reply.
    Hit = 64,
    /// The reply states that the source has no value.
    NegativeHit,
    /// An expired value is in the reply; it may be served, and kept nowhere.
    Stale,
    /// There is no value.
    Miss,
    /// The loaded value goes to the callers, and into tier 1 until `keep_until`.
    Deliver,
    /// The loader's error goes to the callers.
    Failed,
    /// Confirmed.
    Done,
    /// Not confirmed, and journalled; of a direct command: unknown.
    Unconfirmed,
}

impl Action {
    /// Returns whether the caller opens a new mark in tier 1 before it performs this.
    pub fn is_marked(self) -> bool {
        matches!(self, Self::Get | Self::Fill | Self::Put | Self::Claim)
    }

    /// Returns whether this is a command to the server.
    pub fn is_command(self) -> bool {
        self < Self::Probe
    }

    /// Returns whether the operation has ended.
    pub fn is_end(self) -> bool {
        self >= Self::Hit
    }
}

/// What the server answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// A value, or nil.
    Value(Option<&'a [u8]>),
    /// Whether it was done.
    Flag(bool),
    /// Whether the claim was won, and the key's value.
    Claim(bool, Option<&'a [u8]>),
}
