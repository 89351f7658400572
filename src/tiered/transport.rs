//! What a server has to do to be a second tier: the traits that a transport implements.

use super::keys::{hex, quote_name};
pub use crate::tier2::Failure;
use blake2::digest::consts::U16;
use blake2::{Blake2b, Digest};
use std::borrow::Cow;
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
    /// If the first 24 bytes of `key` are `expected`: overwrite its stamp and its soft end as
    /// [`Command::Expire`] does, and let it expire after `px` milliseconds. Whether they were:
    /// [`Answer::Flag`].
    Touch {
        /// The key.
        key: &'a [u8],
        /// What the beginning of the value is compared with.
        expected: &'a [u8],
        /// The new stamp.
        stamp: &'a [u8],
        /// Milliseconds since 1970, written as 8 bytes, the lowest first.
        soft_end: u64,
        /// Milliseconds.
        px: u64,
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

/// Executes commands one after another, as [`Connection::execute_many`] does where a transport does
/// not replace it.
pub fn execute_each<C: Connection + ?Sized>(
    connection: &mut C,
    commands: &[Command<'_>],
    deadline: Instant,
) -> Vec<Result<Answer, Failure>> {
    let mut broken = false;
    let mut execute = |command| {
        if broken {
            return Err(Failure::NotSent);
        }
        let answer = connection.execute(command, deadline);
        broken = matches!(answer, Err(Failure::Timeout));
        answer
    };
    commands.iter().map(&mut execute).collect()
}

/// A connection, for one command at a time.
pub trait Connection: Send {
    /// Executes a command.
    ///
    /// # Errors
    /// [`Failure::Timeout`] if a part of the command may have been sent, and there was no whole
    /// answer by `deadline`: the caller drops the connection. Otherwise what the server answered.
    fn execute(&mut self, command: &Command<'_>, deadline: Instant) -> Result<Answer, Failure>;

    /// Executes commands in their order, and returns the outcome of each. Transports that can send
    /// them in one packet do so; the default executes one after another.
    ///
    /// After [`Failure::Timeout`] the outcomes of the commands behind it are [`Failure::NotSent`]
    /// if nothing of them was sent, otherwise [`Failure::Timeout`], too.
    fn execute_many(&mut self, commands: &[Command<'_>], deadline: Instant) -> Vec<Result<Answer, Failure>> {
        execute_each(self, commands, deadline)
    }

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

/// What the servers of a [`Tier2`] are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traits {
    /// [`Tier2::subscribe`] works: the servers announce changes.
    pub announces: bool,
    /// A key never moves from one server to another. Then each server has generations of its own.
    pub is_fixed: bool,
    /// The resolution of the servers' clocks in milliseconds.
    pub clock_resolution: u64,
    /// The most bytes of an encoded value.
    pub max_value: usize,
}

impl Default for Traits {
    /// Those of a Redis.
    fn default() -> Self {
        Self {
            announces: true,
            is_fixed: false,
            clock_resolution: 1,
            max_value: usize::MAX,
        }
    }
}

/// Returns what distinguishes the keys of the generations that a server with this name has, as the
/// Python package writes it: for [`Tier2::generation_tags`] with [`Traits::is_fixed`].
pub fn generation_tag(name: &str) -> Vec<u8> {
    format!("{{{}}}", quote_name(name)).into_bytes()
}

/// Returns the key itself, or, if it has more bytes than `longest`, `#` and the 32 hex digits of
/// its `BLAKE2b` hash of 128 bits: for servers whose keys are short, as the Python package does it.
pub fn short_key(key: &[u8], longest: usize) -> Cow<'_, [u8]> {
    if key.len() <= longest {
        return Cow::Borrowed(key);
    }
    format!("#{}", hex(&Blake2b::<U16>::digest(key))).into_bytes().into()
}

/// Servers that several processes use as the second tier of their caches: one, or several that
/// have different keys.
///
/// Servers are numbered from 0, by the same numbers for as long as the value lives.
///
/// The calls block, each until its deadline at the latest. [`Tiered`](super::Tiered) has the pool
/// of connections, the order of commands, and the decision of what each answer means.
pub trait Tier2: Send + Sync + 'static {
    /// Returns what the servers are like, always the same.
    fn traits(&self) -> Traits {
        Traits::default()
    }

    /// Returns the number of servers that are known: at least 1. It may grow.
    fn servers(&self) -> u32 {
        1
    }

    /// Returns the server that has `key`, as far as is known. Waits for nothing.
    fn server_of(&self, _key: &[u8]) -> u32 {
        0
    }

    /// Returns whether the server has keys: one of a cluster may have lost them to others.
    fn is_serving(&self, _server: u32) -> bool {
        true
    }

    /// Returns what keys must contain to be on the server, such as a hash tag in braces; empty if
    /// that takes nothing.
    fn tag_of(&self, _server: u32) -> Vec<u8> {
        Vec::new()
    }

    /// Returns what distinguishes the keys of a cache's generations, always the same: with
    /// [`Traits::is_fixed`] one for each server, in a cluster one for each of as many equal ranges
    /// of slots, otherwise an empty one.
    fn generation_tags(&self) -> Vec<Vec<u8>> {
        vec![Vec::new()]
    }

    /// Returns counters of the transport's own, by name: a part of
    /// [`TieredStats::server`](super::TieredStats).
    fn counters(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// Learns what has changed about the servers: which ones there are, and which keys each has. A
    /// thread of the cache calls it several times a second, and it mostly does nothing.
    fn refresh(&self, _deadline: Instant) {}

    /// Opens a connection to a server.
    ///
    /// # Errors
    /// There is no server that answers by `deadline`, or it does not serve this user.
    fn connect(&self, server: u32, deadline: Instant) -> Result<(Box<dyn Connection>, Greeting), Failure>;

    /// Opens a connection on which the changes of all keys are announced that begin with one of
    /// `prefixes`, of which none begins with another.
    ///
    /// # Errors
    /// There is no server that answers by `deadline`, or it announces no changes.
    fn subscribe(&self, server: u32, prefixes: &[&[u8]], deadline: Instant) -> Result<Box<dyn Bus>, Failure>;
}
