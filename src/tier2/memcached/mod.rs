//! The second tier on memcached: what an [`Action`](super::Action) is in its commands, without I/O.
//!
//! An [`Exchange`] is one action: it names the commands to send, takes their replies, and names
//! the next commands or the [`Outcome`]. [`reply_length`] splits a stream of bytes into replies,
//! and [`node_of`] names the server of a key. All transports follow the same rules, so programs in
//! different languages share values:
//!
//! # Keys
//! The same as on Redis. They are printable and have no blanks. A key of more than [`LONGEST_KEY`]
//! bytes is replaced by `#` and the 32 hex digits of its `BLAKE2b` hash of 128 bits. The key of a
//! claim is on the server of the key that it belongs to, and each server has its own copy of a
//! namespace's generations ([`Settings::generation_per_node`](super::Settings)).
//!
//! # Values
//! Frames, as on Redis; the client flags are 0. An item lives for at least as long as the action
//! requires: seconds are rounded up, and one is added since the clock ticks in whole seconds
//! ([`expiration`]). The frame's soft end is what expires a value, on a clock that is found out
//! from the seconds of `stats` ([`Settings::clock_resolution`](super::Settings)).
//!
//! # Comparisons
//! Redis compares the head of a frame in a script. Here the client reads the item with its CAS
//! number, compares the head, and stores under that number: the server refuses if the item was
//! replaced in between. Of a lease that this process took, and of a frame that it read together
//! with a claim, the number is known ([`CasNumbers`]), which saves the read. A number restarts with
//! the server, so it is only sent on a connection that was open before the number was read.
//!
//! # Writes that arrive late
//! A request that was given up may lie in the socket buffer of a stopped server, and be executed
//! after later ones. No connection can be killed here, and no script compares a clock. So no
//! request is harmful when it is late: [`Put`](super::Action::Put) adds a placeholder, a lease that
//! is no caller's, and stores under the CAS number of what is then there. Late, it finds another
//! number, or nothing. (The placeholder itself makes readers wait until it expires.) What is sent
//! without a comparison is a removal, or the new stamp of a generation, which invalidates.
mod exchange;
mod node;
mod reply;
#[cfg(all(test, not(loom)))]
mod tests;

pub use exchange::{CasNumbers, Exchange, Operands, Outcome, Protocol, Step};
pub use node::node_of;
pub use reply::{LONGEST_REPLY, Malformed, reply_length, value_of};

/// Longest key that is sent as it is.
pub const LONGEST_KEY: usize = 250;
/// Seconds beyond which memcached takes an expiration time for a date.
const MONTH: u64 = 30 * 24 * 3600;

/// Returns the expiration time of an item that must live for `px` milliseconds. `server_ms` is the
/// server's time.
pub fn expiration(px: u64, server_ms: u64) -> u64 {
    // An item of n seconds lives for more than n - 1.
    let seconds = px.div_ceil(1_000).saturating_add(1);
    if seconds <= MONTH {
        return seconds;
    }
    (server_ms / 1_000).saturating_add(seconds).min(i32::MAX as u64)
}
