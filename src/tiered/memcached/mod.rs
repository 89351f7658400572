//! Memcached servers as the second tier, by a client of this crate's own.
//!
//! What a [`Command`](super::Command) is in requests and replies is in
//! [`tier2::memcached`](crate::tier2::memcached), which the Python package uses, too. Here are the
//! sockets: [`socket`] has the deadlines, [`client`] the connections, [`address`] the names of
//! servers.

mod address;
mod client;
mod socket;
#[cfg(test)]
mod tests;

use super::transport::{Bus, Connection, Failure, Greeting, Tier2, Traits, generation_tag};
use crate::tier2::memcached::{CasNumbers, node_of};
use address::Address;
pub use address::AddressError;
use client::MemcachedConnection;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// What an item needs beside the encoded value, at most: the key, the frame with its tags, and the
/// server's own head.
const OVERHEAD: usize = 2 << 10;
/// The size of the largest item of a server that was started without `-I`.
const ITEM_SIZE: usize = 1 << 20;
/// The least that the limit of a reply is: of what programs with other settings stored.
const LONGEST_REPLY: usize = 64 << 20;

/// Memcached servers as the second tier of caches.
///
/// Keys are spread over the servers by rendezvous hashing, as the Python package and pymemcache's
/// `HashClient` do it. A server that is down keeps its keys: they are loaded without the second
/// tier until it is back, since another server would hold values that nothing invalidates.
///
/// memcached announces no changes: a value that another process replaced or removed may be returned
/// from the first tier for
/// [`local_ttl`](super::TieredBuilder::local_ttl), 5 s if nothing is set. From memcached 1.6.13 on,
/// meta commands are used. An older server works, too: `expire` removes there, and
/// [`TieredStats::server`](super::TieredStats) counts it as `classic_servers`.
///
/// Nothing is sent before a cache uses it, so a program starts while servers are down. A clone
/// refers to the same servers. Servers that require TLS or a password are not supported. The system
/// resolves hosts' names, which may take longer than the timeout.
///
/// # Examples
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use hotset::tiered::{Bytes, Memcached, Tiered};
///
/// let servers = Memcached::open(["10.0.0.1:11211", "10.0.0.2:11211"])?;
/// let prices: Tiered<str, String> = Tiered::builder("shop", "prices", servers, Bytes)
///     .max_entries(10_000)
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Memcached {
    shared: Arc<Shared>,
}

/// What the connections to the servers have in common.
struct Shared {
    addresses: Vec<Address>,
    /// The names of the servers, by number.
    names: Vec<Box<[u8]>>,
    item_size: usize,
    numbers: CasNumbers,
    serials: AtomicU64,
    /// Whether each server lacks meta commands, as of the last connection.
    is_classic: Vec<AtomicBool>,
}

impl Shared {
    fn new(addresses: Vec<Address>, item_size: usize) -> Self {
        Self {
            names: addresses
                .iter()
                .map(|address| address.name().into_bytes().into())
                .collect(),
            is_classic: addresses.iter().map(|_| AtomicBool::new(false)).collect(),
            addresses,
            item_size,
            numbers: CasNumbers::default(),
            serials: AtomicU64::new(1),
        }
    }

    fn longest_reply(&self) -> usize {
        self.item_size.saturating_add(OVERHEAD).max(LONGEST_REPLY)
    }
}

impl fmt::Debug for Memcached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.shared.addresses.iter().map(Address::name).collect();
        f.debug_struct("Memcached")
            .field("servers", &names)
            .finish_non_exhaustive()
    }
}

impl Memcached {
    /// Returns the servers with these addresses, such as `10.0.0.1:11211`, `[::1]:11211`,
    /// `cache.example`, `/run/memcached.sock` or `unix:/run/memcached.sock`.
    ///
    /// All programs that share values write the addresses alike, in any order: keys are spread by
    /// these texts.
    ///
    /// # Errors
    /// An address is malformed, there is none, or one is there twice.
    pub fn open(servers: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, AddressError> {
        let mut addresses = Vec::new();
        for server in servers {
            let address = Address::of(server.as_ref())?;
            if addresses.contains(&address) {
                return Err(AddressError::new(format!(
                    "a server is there twice: {}",
                    address.name()
                )));
            }
            addresses.push(address);
        }
        if addresses.is_empty() {
            return Err(AddressError::new("there must be a server"));
        }
        Ok(Self {
            shared: Arc::new(Shared::new(addresses, ITEM_SIZE)),
        })
    }

    /// Sets the size of the largest item, as the servers were started with it (`-I`): values that
    /// are about as large, or larger, stay in the first tier. Default: 1 MiB, which is that of the
    /// servers.
    ///
    /// The cache's own limit is
    /// [`TieredBuilder::max_value`](super::TieredBuilder::max_value).
    #[must_use]
    pub fn item_size(self, bytes: usize) -> Self {
        Self {
            shared: Arc::new(Shared::new(self.shared.addresses.clone(), bytes)),
        }
    }
}

impl Tier2 for Memcached {
    fn traits(&self) -> Traits {
        Traits {
            announces: false,
            is_fixed: true,
            // `stats` has seconds.
            clock_resolution: 1_000,
            max_value: self.shared.item_size.saturating_sub(OVERHEAD),
        }
    }

    fn servers(&self) -> u32 {
        self.shared.names.len() as u32
    }

    fn server_of(&self, key: &[u8]) -> u32 {
        node_of(&self.shared.names, key) as u32
    }

    fn generation_tags(&self) -> Vec<Vec<u8>> {
        let tag = |address: &Address| generation_tag(&address.name());
        self.shared.addresses.iter().map(tag).collect()
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        // Relaxed: a report.
        let is_classic = |flag: &&AtomicBool| flag.load(Ordering::Relaxed);
        let classic = self.shared.is_classic.iter().filter(is_classic).count();
        vec![("classic_servers", classic as u64)]
    }

    fn connect(&self, server: u32, deadline: Instant) -> Result<(Box<dyn Connection>, Greeting), Failure> {
        if server >= self.servers() {
            return Err(Failure::Refused);
        }
        let (connection, greeting) = MemcachedConnection::open(&self.shared, server as usize, deadline)?;
        Ok((Box::new(connection), greeting))
    }

    fn subscribe(&self, _: u32, _: &[&[u8]], _: Instant) -> Result<Box<dyn Bus>, Failure> {
        Err(Failure::Refused)
    }
}
