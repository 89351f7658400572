//! Caches with a second tier on a real cluster, and on a master that a sentinel watches:
//! `make test-tiered`.
#![cfg(unix)]

use hotset::tiered::{Bytes, Redis, Tiered};
use std::time::Duration;

#[path = "common/redis_server.rs"]
mod redis_server;

use redis_server::{Server, free_port, until};

type Texts = Tiered<str, String>;

fn cache(redis: Redis) -> Texts {
    let builder = Tiered::builder("shop", "prices", redis, Bytes);
    builder
        .max_entries(1_000)
        .ttl(Duration::from_secs(600))
        .build()
        .unwrap()
}

fn armed(cache: &Texts, servers: usize) {
    until(|| {
        let stats = cache.stats();
        stats.bus == "armed" && stats.servers.len() >= servers
    });
}

fn load(cache: &Texts, key: &str, value: &str) -> String {
    cache.get_or_load(key, || Ok::<_, ()>(value.to_owned())).unwrap()
}

/// Three masters, and a replica of the first one.
struct Cluster {
    servers: Vec<Server>,
}

impl Cluster {
    fn start() -> Self {
        let start = |_| {
            let bus = free_port().to_string();
            let arguments = [
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &bus,
                "--cluster-node-timeout",
                "1000",
            ];
            Server::start_with(&arguments)
        };
        let servers: Vec<Server> = (0..4).map(start).collect();
        let bus_port = |server: &Server| -> String {
            let config: Vec<String> = server.run(&["CONFIG", "GET", "cluster-port"]);
            config[1].clone()
        };
        for (at, (first, last)) in [(0, 5_460), (5_461, 10_922), (10_923, 16_383)].into_iter().enumerate() {
            let (first, last): (i32, i32) = (first, last);
            () = servers[at].run(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
        }
        for server in &servers[1..] {
            let (port, bus) = (server.port.to_string(), bus_port(server));
            () = servers[0].run(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        }
        let first: String = servers[0].run(&["CLUSTER", "MYID"]);
        until(|| servers[3].run::<String>(&["CLUSTER", "NODES"]).contains(&first));
        () = servers[3].run(&["CLUSTER", "REPLICATE", &first]);
        let is_ok = |server: &Server| {
            let info: String = server.run(&["CLUSTER", "INFO"]);
            let nodes: String = server.run(&["CLUSTER", "NODES"]);
            info.contains("cluster_state:ok") && nodes.lines().count() == 4 && nodes.contains("slave")
        };
        until(|| servers.iter().all(is_ok));
        until(|| servers[3].says("replication", "master_link_status:up"));
        Self { servers }
    }

    fn redis(&self) -> Redis {
        Redis::cluster(self.servers[..2].iter().map(Server::url)).unwrap()
    }

    fn cache(&self) -> Texts {
        cache(self.redis())
    }

    /// The master of a key's slot, by its place.
    fn master_of(&self, name: &str) -> (usize, u16) {
        let slot: u16 = self.servers[1].run(&["CLUSTER", "KEYSLOT", name]);
        let place = [5_460, 10_922, 16_383].iter().position(|last| slot <= *last);
        (place.unwrap(), slot)
    }
}

fn names(keys: usize) -> Vec<String> {
    (0..keys).map(|key| format!("key{key}")).collect()
}

#[test]
fn the_servers_of_a_cluster_are_one_second_tier() {
    let cluster = Cluster::start();
    // A busy machine may need more than the default timeout, and no server fails here.
    let patient = || -> Texts {
        let builder = Tiered::builder("shop", "prices", cluster.redis(), Bytes);
        let builder = builder.max_entries(1_000).ttl(Duration::from_secs(600));
        let seconds = Duration::from_secs(10);
        builder.timeout(seconds).connect_timeout(seconds).build().unwrap()
    };
    let (here, there) = (patient(), patient());
    let names = names(50);
    let entries: Vec<(&str, String)> = names.iter().map(|name| (&**name, format!("{name}!"))).collect();
    assert!(here.set_many(&entries));
    armed(&here, 3);
    let keys: Vec<&str> = names.iter().map(|name| &**name).collect();
    let found = there.get_many(&keys);
    assert!(
        found
            .iter()
            .zip(&names)
            .all(|(found, name)| found.as_ref() == Some(&format!("{name}!")))
    );
    armed(&there, 3);
    // Each server has some of them.
    let counts = cluster.servers[..3]
        .iter()
        .map(|server| server.run::<usize>(&["DBSIZE"]));
    assert!(
        counts.clone().all(|count| count > 5),
        "{:?}",
        counts.collect::<Vec<_>>()
    );
    for name in &names {
        assert!(here.set(name, "new".into()));
    }
    until(|| {
        there
            .get_many(&keys)
            .iter()
            .all(|found| found.as_deref() == Some("new"))
    });
    assert!(here.clear());
    until(|| there.get_many(&keys).iter().all(Option::is_none));
    let loaded = there.get_or_load_many(&keys, |keys| Ok::<_, ()>(vec!["loaded".into(); keys.len()]));
    assert_eq!(loaded.unwrap().len(), 50);
    assert!(here.remove_many(&keys));
    until(|| there.get_many(&keys).iter().all(Option::is_none));
}

#[test]
fn a_slot_that_moves_is_followed() {
    let cluster = Cluster::start();
    let (here, there) = (cluster.cache(), cluster.cache());
    assert!(here.set("tea", "3".into()));
    armed(&here, 3);
    armed(&there, 3);
    let name = String::from_utf8(here.name("tea").as_bytes().to_vec()).unwrap();
    let (from, slot) = cluster.master_of(&name);
    let to = (from + 1) % 3;
    let slot = slot.to_string();
    let id = |place: usize| -> String { cluster.servers[place].run(&["CLUSTER", "MYID"]) };
    let (from_id, to_id) = (id(from), id(to));
    () = cluster.servers[to].run(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
    () = cluster.servers[from].run(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
    // The key is here still; others of the slot are read there.
    assert_eq!(cache(cluster.redis()).get("tea").as_deref(), Some("3"));
    let port = cluster.servers[to].port.to_string();
    let moved: String = cluster.servers[from].run(&["MIGRATE", "127.0.0.1", &port, &name, "0", "1000"]);
    assert!(moved == "OK", "{moved}");
    assert_eq!(cache(cluster.redis()).get("tea").as_deref(), Some("3"));
    assert!(here.set("tea", "4".into()));
    assert_eq!(cache(cluster.redis()).get("tea").as_deref(), Some("4"));
    for place in [to, from] {
        () = cluster.servers[place].run(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
    }
    assert!(here.set("tea", "5".into()));
    until(|| there.get("tea").as_deref() == Some("5"));
    assert!(there.remove("tea"));
    until(|| here.get("tea").is_none());
    armed(&here, 3);
}

#[test]
fn a_killed_master_is_replaced_by_its_replica() {
    let mut cluster = Cluster::start();
    let (here, there) = (cluster.cache(), cluster.cache());
    let names = names(30);
    let keys: Vec<&str> = names.iter().map(|name| &**name).collect();
    let loaded = here.get_or_load_many(&keys, |keys| Ok::<_, ()>(vec!["old".into(); keys.len()]));
    assert!(loaded.is_ok());
    armed(&here, 3);
    armed(&there, 3);
    cluster.servers[0].kill();
    // Keys of the other masters are read, and the rest is loaded.
    for name in &names {
        assert!(here.get_or_load(name, || Ok::<_, ()>("new".into())).is_ok());
        here.remove(name);
        assert_eq!(here.get(name), None);
    }
    // The replica takes over, what was removed in between is removed there, and announced.
    until(|| here.stats().unconfirmed == 0);
    until(|| names.iter().all(|name| here.set(name, "newer".into())));
    armed(&here, 4);
    until(|| {
        there
            .get_many(&keys)
            .iter()
            .all(|found| found.as_deref() == Some("newer"))
    });
    assert_eq!(
        here.stats().servers.iter().filter(|(link, _)| *link == "idle").count(),
        1
    );
}

#[test]
fn a_sentinels_new_master_is_followed() {
    let mut master = Server::start();
    let port = master.port.to_string();
    let replica = Server::start_with(&["--replicaof", "127.0.0.1", &port]);
    until(|| replica.says("replication", "master_link_status:up"));
    let sentinel = Server::sentinel("mymaster", master.port);
    until(|| sentinel.says("sentinel", "slaves=1"));
    let redis = || {
        let absent = format!("redis://127.0.0.1:{}", free_port());
        Redis::sentinel([absent, sentinel.url()], "redis://mymaster/0").unwrap()
    };
    let (here, there) = (cache(redis()), cache(redis()));
    assert!(here.set("tea", "3".into()));
    assert_eq!(there.get("tea").as_deref(), Some("3"));
    armed(&here, 1);
    armed(&there, 1);
    master.kill();
    assert_eq!(load(&here, "coffee", "5"), "5");
    here.remove("tea");
    until(|| replica.says("replication", "role:master"));
    until(|| here.stats().unconfirmed == 0);
    until(|| here.set("tea", "6".into()));
    until(|| there.get("tea").as_deref() == Some("6"));
    armed(&there, 1);
}

#[test]
fn addresses_that_are_none_are_errors() {
    assert!(Redis::cluster(Vec::<String>::new()).is_err());
    assert!(Redis::cluster(["redis://localhost/1"]).is_err());
    assert!(Redis::cluster(["http://localhost"]).is_err());
    assert!(Redis::sentinel(Vec::<String>::new(), "redis://mymaster").is_err());
    assert!(Redis::sentinel(["redis://localhost"], "unix:///tmp/socket").is_err());
}
