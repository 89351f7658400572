//! Redis or Valkey as the second tier, by redis-rs: one server, a master that Sentinel knows, or a
//! cluster.

mod bus;
mod cluster;
mod connection;
mod plan;
mod reply;
mod scripts;
mod sentinel;
mod wire;

use super::transport::{Bus, Connection, Failure, Greeting, Tier2};
use bus::RedisBus;
use cluster::Cluster;
use connection::{Abilities, RedisConnection};
use redis::{Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, ProtocolVersion, RedisError};
use reply::failure_of_connecting;
use sentinel::Sentinels;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;
use wire::Wire;

/// A Redis or Valkey server as the second tier of caches: Redis 6 or later.
///
/// Nothing is sent before a cache uses it, so a program starts while the server is down. A clone
/// refers to the same server.
///
/// No reply takes longer than the timeout, in however many pieces it arrives, except with TLS or
/// `TcpSettings` other than `nodelay`: then redis-rs connects, and the timeout is that of each
/// piece.
/// A host's name is resolved by the system, which may take longer.
#[derive(Clone)]
pub struct Redis {
    place: Place,
    abilities: Arc<Abilities>,
}

#[derive(Clone)]
enum Place {
    Single(Client),
    Sentinel(Arc<Sentinels>),
    Cluster(Arc<Cluster>),
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut redis = f.debug_struct("Redis");
        match &self.place {
            Place::Single(client) => redis.field("address", &client.get_connection_info().addr().to_string()),
            Place::Sentinel(sentinels) => redis.field("master", &sentinels.master),
            Place::Cluster(cluster) => redis.field("servers", &cluster.servers()),
        }
        .finish_non_exhaustive()
    }
}

impl Redis {
    fn new(place: Place) -> Self {
        Self {
            place,
            abilities: Arc::default(),
        }
    }

    /// Returns the server with this address, such as `redis://user:password@localhost:6379/0`, or a
    /// `ConnectionInfo` of redis-rs.
    ///
    /// # Errors
    /// The address is malformed, or needs a feature of redis-rs that is off.
    pub fn open(address: impl IntoConnectionInfo) -> Result<Self, RedisError> {
        Ok(Self::new(Place::Single(Client::open(address)?)))
    }

    /// Returns the master that these sentinels know. The host of `master` is its name, and the rest
    /// is how to connect to it: `redis://user:password@mymaster/0`.
    ///
    /// After a failover the next connection finds the new master.
    ///
    /// # Errors
    /// An address is malformed, or needs a feature of redis-rs that is off; there are no sentinels;
    /// `master` has no name.
    pub fn sentinel<S: IntoConnectionInfo>(
        sentinels: impl IntoIterator<Item = S>,
        master: impl IntoConnectionInfo,
    ) -> Result<Self, RedisError> {
        let like = master.into_connection_info()?;
        let master = match like.addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.clone(),
            _ => return Err(invalid("the master has no name")),
        };
        let sentinels: Vec<_> = sentinels.into_iter().map(Client::open).collect::<Result<_, _>>()?;
        if sentinels.is_empty() {
            return Err(invalid("there are no sentinels"));
        }
        Ok(Self::new(Place::Sentinel(Arc::new(Sentinels::new(
            sentinels, master, like,
        )))))
    }

    /// Returns the cluster that these servers belong to, of which some may be down. User, password
    /// and TLS of the first address are used for all servers.
    ///
    /// # Errors
    /// An address is malformed, or needs a feature of redis-rs that is off, or names another
    /// database than 0; there are none.
    pub fn cluster<S: IntoConnectionInfo>(servers: impl IntoIterator<Item = S>) -> Result<Self, RedisError> {
        let open = |server: S| Client::open(server).map(|client| client.get_connection_info().clone());
        let seeds: Vec<ConnectionInfo> = servers.into_iter().map(open).collect::<Result<_, _>>()?;
        if seeds.is_empty() {
            return Err(invalid("there are no servers"));
        }
        if seeds.iter().any(|seed| seed.redis_settings().db() != 0) {
            return Err(invalid("a cluster has no databases but 0"));
        }
        Ok(Self::new(Place::Cluster(Arc::new(Cluster::new(seeds)))))
    }

    /// Returns how to connect to a server now.
    fn client(&self, server: u32, deadline: Instant) -> Result<Client, Failure> {
        let info = match &self.place {
            Place::Single(client) => return Ok(client.clone()),
            Place::Sentinel(sentinels) => sentinels.info(deadline)?,
            Place::Cluster(cluster) => cluster.info_of(server, deadline)?,
        };
        Client::open(info).map_err(|error| failure_of_connecting(&error))
    }

    fn in_cluster(&self) -> Option<&Arc<Cluster>> {
        match &self.place {
            Place::Cluster(cluster) => Some(cluster),
            _ => None,
        }
    }
}

fn invalid(text: &'static str) -> RedisError {
    (ErrorKind::InvalidClientConfig, text).into()
}

impl Tier2 for Redis {
    fn servers(&self) -> u32 {
        self.in_cluster().map_or(1, |cluster| cluster.servers())
    }

    fn server_of(&self, key: &[u8]) -> u32 {
        self.in_cluster().map_or(0, |cluster| cluster.server_of(key))
    }

    fn is_serving(&self, server: u32) -> bool {
        self.in_cluster().is_none_or(|cluster| cluster.is_serving(server))
    }

    fn tag_of(&self, server: u32) -> Vec<u8> {
        self.in_cluster().map_or(Vec::new(), |cluster| cluster.tag_of(server))
    }

    fn generation_tags(&self) -> Vec<Vec<u8>> {
        let of_cluster = self.in_cluster().map(|_| Cluster::generation_tags());
        of_cluster.unwrap_or_else(|| vec![Vec::new()])
    }

    fn refresh(&self, deadline: Instant) {
        if let Some(cluster) = self.in_cluster() {
            cluster.refresh(deadline);
        }
    }

    fn connect(&self, server: u32, deadline: Instant) -> Result<(Box<dyn Connection>, Greeting), Failure> {
        let client = self.client(server, deadline)?;
        let mut connection = RedisConnection {
            wire: Wire::open(&client, deadline)?,
            abilities: self.abilities.clone(),
            cluster: self.in_cluster().map(|cluster| (cluster.clone(), server)),
        };
        let greeting = connection.greet(deadline).map_err(|failure| match failure {
            Failure::Timeout => Failure::Refused,
            failure => failure,
        })?;
        Ok((Box::new(connection), greeting))
    }

    fn subscribe(&self, server: u32, prefixes: &[&[u8]], deadline: Instant) -> Result<Box<dyn Bus>, Failure> {
        let info = self.client(server, deadline)?.get_connection_info().clone();
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = Client::open(info.set_redis_settings(settings));
        let client = client.map_err(|error| failure_of_connecting(&error))?;
        let wire = Wire::open(&client, deadline)?;
        Ok(Box::new(RedisBus::subscribe(wire, prefixes, deadline)?))
    }
}
