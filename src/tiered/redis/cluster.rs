//! The servers of a cluster, by number, and which of them has which slots.

use super::reply::{failure_of_connecting, number};
use super::wire::{Wire, command, exchange};
use crate::tier2::{SLOTS, slot};
use crate::tiered::session::lock;
use crate::tiered::transport::Failure;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, ServerError, Value};
use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// How many ranges of slots have a generation of their own: as many as in the Python package.
const GROUPS: u16 = 16;
/// Shortest time between two looks at the slots.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The most servers.
const MOST_SERVERS: usize = 4_096;
/// The most keys on the way to another server that are remembered.
const MOST_ASKED: usize = 4_096;

type Address = (String, u16);

/// A cluster.
pub(super) struct Cluster {
    /// Where to ask first. The first one's settings are those of all connections.
    seeds: Vec<ConnectionInfo>,
    state: Mutex<State>,
    /// One thread looks at a time.
    looking: Mutex<Option<Instant>>,
}

struct State {
    /// By number: masters, present and previous ones.
    servers: Vec<Address>,
    /// The server of each slot; empty before the first discovery.
    slots: Vec<u32>,
    /// Keys that are being moved, and the server that was named for them.
    asked: HashMap<Vec<u8>, u32>,
    /// The number of looks: each begins with another server, since one that is stopped takes the
    /// time of a whole look.
    looks: usize,
}

impl State {
    fn number_of(&mut self, address: Address) -> Option<u32> {
        let known = self.servers.iter().position(|known| *known == address);
        let number = known.or_else(|| {
            (self.servers.len() < MOST_SERVERS).then(|| {
                self.servers.push(address);
                self.servers.len() - 1
            })
        });
        number.map(|number| number as u32)
    }
}

impl Cluster {
    /// # Panics
    /// If there are no seeds.
    pub(super) fn new(seeds: Vec<ConnectionInfo>) -> Self {
        assert!(!seeds.is_empty(), "a cluster has servers");
        let state = State {
            servers: Vec::new(),
            slots: Vec::new(),
            asked: HashMap::new(),
            looks: 0,
        };
        Self {
            seeds,
            state: Mutex::new(state),
            looking: Mutex::new(None),
        }
    }

    pub(super) fn servers(&self) -> u32 {
        lock(&self.state).servers.len().max(1) as u32
    }

    pub(super) fn server_of(&self, key: &[u8]) -> u32 {
        let state = lock(&self.state);
        if let Some(&server) = state.asked.get(key) {
            return server;
        }
        state.slots.get(usize::from(slot(key))).copied().unwrap_or(0)
    }

    pub(super) fn is_serving(&self, server: u32) -> bool {
        let state = lock(&self.state);
        state.slots.is_empty() || state.slots.contains(&server)
    }

    /// Returns a hash tag of a slot that the server has.
    pub(super) fn tag_of(&self, server: u32) -> Vec<u8> {
        let state = lock(&self.state);
        let has = |text: &String| state.slots.get(usize::from(slot(text.as_bytes()))) == Some(&server);
        if !state.slots.contains(&server) {
            return Vec::new();
        }
        let found = (0_u32..).map(|number| format!("{number:x}")).find(has);
        found.map_or(Vec::new(), |text| format!("{{{text}}}:").into_bytes())
    }

    /// Returns the hash tags of the first slots of all ranges, as the Python package chooses them:
    /// the smallest hexadecimal numbers.
    pub(super) fn generation_tags() -> Vec<Vec<u8>> {
        static TAGS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
        let find = || {
            let mut tags = vec![Vec::new(); GROUPS.into()];
            let mut missing = GROUPS;
            for number in 0_u32.. {
                let text = format!("{number:x}");
                let slot = slot(text.as_bytes());
                let tag = &mut tags[usize::from(slot / (SLOTS / GROUPS))];
                if slot.is_multiple_of(SLOTS / GROUPS) && tag.is_empty() {
                    *tag = format!("{{{text}}}").into_bytes();
                    missing -= 1;
                    if missing == 0 {
                        break;
                    }
                }
            }
            tags
        };
        TAGS.get_or_init(find).clone()
    }

    /// Returns how to connect to a server. Before the first discovery, discovers them.
    pub(super) fn info_of(&self, server: u32, deadline: Instant) -> Result<ConnectionInfo, Failure> {
        if lock(&self.state).slots.is_empty() {
            self.look(deadline)?;
        }
        let state = lock(&self.state);
        let address = state.servers.get(server as usize).ok_or(Failure::Refused)?;
        Ok(self.at(address))
    }

    fn at(&self, (host, port): &Address) -> ConnectionInfo {
        let like = &self.seeds[0];
        let address = match like.addr() {
            ConnectionAddr::TcpTls {
                insecure, tls_params, ..
            } => ConnectionAddr::TcpTls {
                host: host.clone(),
                port: *port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host.clone(), *port),
        };
        like.clone().set_addr(address)
    }

    /// Looks at the slots again, if the last look was some time ago.
    pub(super) fn refresh(&self, deadline: Instant) {
        let is_due = |last: Option<Instant>| last.is_none_or(|last| last.elapsed() >= LOOK_INTERVAL);
        let due = self.looking.try_lock().is_ok_and(|last| is_due(*last));
        // Before the first use there is no need to.
        if due && !lock(&self.state).slots.is_empty() {
            _ = self.look(deadline);
        }
    }

    /// Asks servers, until one answers, for the slots.
    fn look(&self, deadline: Instant) -> Result<(), Failure> {
        let mut last = self.looking.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *last = Some(Instant::now());
        let infos = {
            let mut state = lock(&self.state);
            state.looks += 1;
            let serving = |server: &u32| state.slots.contains(server);
            let numbers = (0..state.servers.len() as u32).filter(serving);
            let known = numbers.map(|server| self.at(&state.servers[server as usize]));
            let mut infos: Vec<_> = known.chain(self.seeds.iter().cloned()).collect();
            let turn = state.looks % infos.len();
            infos.rotate_left(turn);
            infos
        };
        let mut failure = Failure::Refused;
        for info in infos {
            match self.ask(info, deadline) {
                Ok(ranges) if !ranges.is_empty() => {
                    self.learn(ranges);
                    return Ok(());
                }
                Ok(_) => failure = Failure::ClusterDown,
                Err(other) => failure = other,
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        Err(failure)
    }

    fn learn(&self, ranges: Vec<(u16, u16, Address)>) {
        let mut state = lock(&self.state);
        if state.slots.is_empty() {
            state.slots = vec![0; SLOTS.into()];
        }
        for (first, last, address) in ranges {
            if let Some(server) = state.number_of(address) {
                state.slots[first.into()..=last.into()].fill(server);
            }
        }
        state.asked.clear();
    }

    /// Returns ranges of slots with the addresses of their masters.
    fn ask(&self, info: ConnectionInfo, deadline: Instant) -> Result<Vec<(u16, u16, Address)>, Failure> {
        let host = match info.addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.clone(),
            _ => String::new(),
        };
        let info = info
            .into_connection_info()
            .map_err(|error| failure_of_connecting(&error))?;
        let client = redis::Client::open(info).map_err(|error| failure_of_connecting(&error))?;
        let mut wire = Wire::open(&client, deadline)?;
        let replies = exchange(&mut wire, &[command(&[b"CLUSTER", b"SLOTS"])], deadline);
        match replies.map_err(|_| Failure::Refused)?.pop() {
            Some(Value::Array(ranges)) => Ok(ranges.iter().filter_map(|range| range_of(range, &host)).collect()),
            Some(Value::ServerError(error)) => Err(super::reply::failure_of(&error)),
            _ => Err(Failure::Other),
        }
    }

    /// Notes where a key is, according to an error.
    pub(super) fn note(&self, error: &ServerError, key: &[u8], server: u32) {
        let code = error.code();
        if !matches!(code, "MOVED" | "ASK") {
            return;
        }
        let mut words = error.details().unwrap_or_default().split(' ');
        let (slot, place) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let Some((host, port)) = place.rsplit_once(':') else {
            return;
        };
        let (Ok(slot), Ok(port)) = (slot.parse::<u16>(), port.parse::<u16>()) else {
            return;
        };
        let mut state = lock(&self.state);
        let host = match (host, state.servers.get(server as usize)) {
            ("", Some((host, _))) => host.clone(),
            (host, _) => host.into(),
        };
        let Some(number) = state.number_of((host, port)) else {
            return;
        };
        if code == "ASK" {
            if state.asked.len() >= MOST_ASKED {
                state.asked.clear();
            }
            state.asked.insert(key.to_vec(), number);
        } else if let Some(place) = state.slots.get_mut(usize::from(slot)) {
            *place = number;
            state.asked.remove(key);
        }
    }

    /// Returns whether the server was named for this key, which is being moved to it: for the next
    /// command.
    pub(super) fn takes_over(&self, key: &[u8], server: u32) -> bool {
        let mut state = lock(&self.state);
        let named = state.asked.get(key) == Some(&server);
        if named {
            state.asked.remove(key);
        }
        named
    }
}

/// Returns a range of slots, and the address of its master. `host` is that of the server that
/// answered, which stands for an empty one.
fn range_of(range: &Value, host: &str) -> Option<(u16, u16, Address)> {
    let Value::Array(parts) = range else {
        return None;
    };
    let [first, last, Value::Array(master), ..] = &parts[..] else {
        return None;
    };
    let slot = |value| {
        number(value)
            .and_then(|slot| u16::try_from(slot).ok())
            .filter(|slot| *slot < SLOTS)
    };
    let (first, last) = (slot(first)?, slot(last)?);
    let name = match master.first()? {
        Value::BulkString(name) => String::from_utf8(name.clone()).ok()?,
        Value::SimpleString(name) => name.clone(),
        Value::Nil => String::new(),
        _ => return None,
    };
    let name = if name.is_empty() || name == "?" {
        host.to_owned()
    } else {
        name
    };
    let port = u16::try_from(number(master.get(1)?)?).ok()?;
    (first <= last).then_some((first, last, (name, port)))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    // What `hotset.tier2._topology.tag_of` returns for the first and the last of them.
    #[test]
    fn generations_have_the_tags_of_python() {
        let tags = Cluster::generation_tags();
        assert_eq!(tags.len(), 16);
        for (place, tag) in tags.iter().enumerate() {
            assert_eq!(
                usize::from(slot(tag)),
                place * 1_024,
                "{}",
                String::from_utf8_lossy(tag)
            );
        }
    }

    #[test]
    fn what_servers_say_of_slots_is_not_trusted() {
        let array = |parts: &[Value]| Value::Array(parts.to_vec());
        let host = Value::BulkString(b"10.0.0.1".to_vec());
        let range = |first, last, master: &[Value]| array(&[Value::Int(first), Value::Int(last), array(master)]);
        let good = range_of(&range(0, 5, &[host.clone(), Value::Int(7)]), "other");
        assert_eq!(good, Some((0, 5, ("10.0.0.1".into(), 7))));
        let unnamed = range_of(&range(0, 5, &[Value::Nil, Value::Int(7)]), "other");
        assert_eq!(unnamed, Some((0, 5, ("other".into(), 7))));
        for bad in [
            range(5, 0, &[host.clone(), Value::Int(7)]),
            range(0, 16_384, &[host.clone(), Value::Int(7)]),
            range(-1, 3, &[host.clone(), Value::Int(7)]),
            range(0, 5, &[host.clone(), Value::Int(70_000)]),
            range(0, 5, &[host]),
            range(0, 5, &[]),
            array(&[Value::Int(1)]),
            Value::Nil,
        ] {
            assert_eq!(range_of(&bad, "other"), None, "{bad:?}");
        }
    }
}
