//! What a server has to do to be a second tier: the traits that a transport implements.

pub use crate::tier2::Failure;
use std::time::Instant;

/// A command for the server. Stamps and frames are bytes of the protocol, which a transport passes
/// on as they are.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Command<'a> {
    /// GET `key`: [`Answer::Value`].
    Get {
        /// The key.
        key: &'a [u8],
    },
    /// If there is no `key`: SET it to `frame`, for `px` milliseconds (0: for ever). The old value:
    /// [`Answer::Value`].
    Acquire {
        /// The key.
        key: &'a [u8],
        /// The new value.
        frame: &'a [u8],
        /// Milliseconds; 0: without an end.
        px: u64,
    },
    /// If the first 24 bytes of `key` (all of a shorter value) are `expected`: SET it to `frame`,
    /// for `px` milliseconds. Whether it was: [`Answer::Flag`].
    Swap {
        /// The key.
        key: &'a [u8],
        /// What the beginning of the value is compared with.
        expected: &'a [u8],
        /// The new value.
        frame: &'a [u8],
        /// Milliseconds.
        px: u64,
    },
    /// SET `key` to `frame`, for `px` milliseconds; nothing if the server's clock is past
    /// `not_after` (milliseconds; 0: always). Whether it was done: [`Answer::Flag`].
    Put {
        /// The key.
        key: &'a [u8],
        /// The new value.
        frame: &'a [u8],
        /// Milliseconds.
        px: u64,
        /// Milliseconds since 1970 by the server's clock; 0: always.
        not_after: u64,
    },
    /// If the first 24 bytes of `key` are `expected`: UNLINK it. [`Answer::Flag`].
    Release {
        /// The key.
        key: &'a [u8],
        /// What the beginning of the value is compared with.
        expected: &'a [u8],
    },
    /// UNLINK `key`. If there is none, SET it and UNLINK it, so that the removal is announced.
    /// [`Answer::Flag`].
    Remove {
        /// The key.
        key: &'a [u8],
    },
    /// If `key` has a frame with a value: overwrite its stamp (at 4) and its soft end (at 24).
    /// Otherwise as [`Command::Remove`]. [`Answer::Flag`].
    Expire {
        /// The key.
        key: &'a [u8],
        /// The new stamp.
        stamp: &'a [u8],
        /// Milliseconds since 1970, written as 8 bytes, the lowest first.
        soft_end: u64,
    },
    /// SET `key` to `stamp`, for ever. [`Answer::Flag`].
    Bump {
        /// The key.
        key: &'a [u8],
        /// The new value.
        stamp: &'a [u8],
    },
    /// If there is no `claim`: SET it to `stamp`, for `px` milliseconds; then GET `key`. Whether it
    /// was set, and the value: [`Answer::Claim`].
    Claim {
        /// The key beside `key`.
        claim: &'a [u8],
        /// Its value.
        stamp: &'a [u8],
        /// Milliseconds.
        px: u64,
        /// The key to read.
        key: &'a [u8],
    },
    /// Close another connection to the server: nothing that was sent on it is executed after the
    /// answer. [`Answer::Flag`], also if it was closed before.
    Fence {
        /// The connection's [`Greeting::connection`].
        connection: u64,
    },
    /// SET `key` to nothing, for `px` milliseconds. [`Answer::Flag`].
    Canary {
        /// The key.
        key: &'a [u8],
        /// Milliseconds.
        px: u64,
    },
}

/// What the server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A value, or that there is none.
    Value(Option<Vec<u8>>),
    /// Whether it was done.
    Flag(bool),
    /// Whether the claim was won, and the value of the key.
    Claim(bool, Option<Vec<u8>>),
}

/// How a server describes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// Identifies the server's data: it differs after a failover or a restart.
    pub identity: Vec<u8>,
    /// The server's clock: milliseconds since 1970.
    pub server_ms: u64,
    /// The server's number of this connection; 0 if it has none.
    pub connection: u64,
    /// Whether [`Command::Fence`] works.
    pub can_fence: bool,
}

/// A connection, for one command at a time.
pub trait Connection: Send {
    /// Executes a command.
    ///
    /// # Errors
    /// [`Failure::Timeout`] if a part of the command may have been sent, and there was no whole
    /// answer by `deadline`: the caller drops the connection. Otherwise what the server answered.
    fn execute(&mut self, command: &Command<'_>, deadline: Instant) -> Result<Answer, Failure>;

    /// Exchanges a PING with the server: called before a command, where the connection was idle.
    ///
    /// # Errors
    /// The server, or something on the way, has closed the connection, or does not answer by
    /// `deadline`: the caller drops the connection.
    fn ping(&mut self, deadline: Instant) -> Result<(), Failure>;
}

/// What came through a [`Bus`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// These keys changed, in this order.
    Changed(Vec<Vec<u8>>),
    /// All keys were removed.
    Flushed,
    /// The answer to [`Bus::ping`].
    Pong,
    /// Nothing, until the deadline.
    Nothing,
}

/// A connection on which the server announces changes.
pub trait Bus: Send {
    /// Returns the next message. Waits for it until `deadline`.
    ///
    /// # Errors
    /// The connection broke.
    fn next(&mut self, deadline: Instant) -> Result<Message, Failure>;

    /// Sends a PING. Its answer comes behind the messages of all changes that the server executed
    /// before it.
    ///
    /// # Errors
    /// The connection broke.
    fn ping(&mut self, deadline: Instant) -> Result<(), Failure>;
}

/// A server that several processes use as the second tier of their caches.
///
/// The calls block, each until its deadline at the latest. [`Tiered`](super::Tiered) has the pool
/// of connections, the order of commands, and the decision of what each answer means.
pub trait Tier2: Send + Sync + 'static {
    /// Opens a connection.
    ///
    /// # Errors
    /// There is no server that answers by `deadline`, or it does not serve this user.
    fn connect(&self, deadline: Instant) -> Result<(Box<dyn Connection>, Greeting), Failure>;

    /// Opens a connection on which the changes of all keys are announced that begin with one of
    /// `prefixes`, of which none begins with another.
    ///
    /// # Errors
    /// There is no server that answers by `deadline`, or it announces no changes.
    fn subscribe(&self, prefixes: &[&[u8]], deadline: Instant) -> Result<Box<dyn Bus>, Failure>;
}
