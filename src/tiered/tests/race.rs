//! Processes that change and read the same keys while the server, and what lies between, fails.
//!
//! The source of a key is a counter. A process must never read less than what it has changed
//! itself, and when all is quiet the server must hold nothing that is out of date.

use super::*;
use std::sync::atomic::AtomicU64;

const KEYS: usize = 4;
const PROCESSES: usize = 3;

/// What may go wrong, in one of this number of commands; 0: never.
#[derive(Clone, Copy, Default)]
struct Faults {
    /// Executed, and not answered.
    unanswered: u64,
    /// Not answered; executed some commands later, unless its connection is closed by a fence.
    late: u64,
    refused: u64,
    /// The buses break.
    bus: u64,
    /// All keys are removed.
    flush: u64,
}

/// A command that is executed later: its connection, and what it writes.
struct Late {
    connection: u64,
    key: Vec<u8>,
    frame: Vec<u8>,
    after: u64,
}

#[derive(Default)]
struct Network {
    memory: Memory,
    late: Mutex<Vec<Late>>,
    random: AtomicU64,
    commands: AtomicU64,
    connections: AtomicU64,
    faults: Mutex<Faults>,
}

impl Network {
    fn random(&self) -> u64 {
        let mut bits = self.random.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    fn happens(&self, one_of: u64) -> bool {
        one_of != 0 && self.random().is_multiple_of(one_of)
    }

    /// Time for others, sometimes.
    fn delay(&self) {
        for _ in 0..self.random() % 4 {
            std::thread::yield_now();
        }
        if self.happens(16) {
            std::thread::sleep(Duration::from_micros(self.random() % 300));
        }
    }

    fn execute_late(&self, number: u64) {
        let mut late = lock(&self.late);
        let mut state = lock(&self.memory.0);
        late.retain(|one| {
            if one.after <= number {
                state.set(&one.key, &one.frame);
            }
            one.after > number
        });
    }
}

#[derive(Clone)]
struct Client(Arc<Network>, u64);

impl Tier2 for Client {
    fn connect(&self, server: u32, deadline: Instant) -> Result<(Box<dyn Connection>, Greeting), Failure> {
        let faults = *lock(&self.0.faults);
        if self.0.happens(faults.refused) {
            return Err(Failure::Refused);
        }
        let (_, mut greeting) = self.0.memory.connect(server, deadline)?;
        greeting.connection = self.0.connections.fetch_add(1, Ordering::Relaxed) + 1;
        Ok((Box::new(Self(self.0.clone(), greeting.connection)), greeting))
    }

    fn subscribe(&self, server: u32, prefixes: &[&[u8]], deadline: Instant) -> Result<Box<dyn Bus>, Failure> {
        self.0.memory.subscribe(server, prefixes, deadline)
    }
}

impl Connection for Client {
    fn ping(&mut self, deadline: Instant) -> Result<(), Failure> {
        self.0.memory.clone().ping(deadline)
    }

    fn execute(&mut self, command: &Command<'_>, deadline: Instant) -> Result<Answer, Failure> {
        let network = &*self.0;
        let faults = *lock(&network.faults);
        network.delay();
        let number = network.commands.fetch_add(1, Ordering::Relaxed);
        network.execute_late(number);
        if let Command::Fence { connection } = command {
            lock(&network.late).retain(|late| late.connection != *connection);
        }
        if network.happens(faults.refused) {
            return Err(Failure::Refused);
        }
        if network.happens(faults.bus) {
            lock(&network.memory.0).buses.clear();
        }
        if network.happens(faults.flush) {
            lock(&network.memory.0).flush();
        }
        if let Command::Put { key, frame, .. } = command
            && network.happens(faults.late)
        {
            lock(&network.late).push(Late {
                connection: self.1,
                key: key.to_vec(),
                frame: frame.to_vec(),
                after: number + network.random() % 50,
            });
            return Err(Failure::Timeout);
        }
        let answer = network.memory.clone().execute(command, deadline);
        network.delay();
        if network.happens(faults.unanswered) {
            return Err(Failure::Timeout);
        }
        answer
    }
}

/// The source, and what each process must not fall behind.
#[derive(Default)]
struct World {
    source: [AtomicU64; KEYS],
    /// Changes of one key are made one after another.
    changing: [Mutex<()>; KEYS],
    floors: [[AtomicU64; KEYS]; PROCESSES],
}

fn name(key: usize) -> String {
    format!("key{key}")
}

impl World {
    fn load(&self, key: usize) -> Result<String, ()> {
        let version = self.source[key].load(Ordering::SeqCst);
        std::thread::yield_now();
        Ok(version.to_string())
    }

    fn check(&self, process: usize, key: usize, floor: u64, found: Option<&str>, call: &str) {
        if let Some(found) = found {
            let version: u64 = found.parse().unwrap();
            assert!(
                version >= floor,
                "process {process} {call} key {key}: {version} < {floor}"
            );
        }
    }

    /// One call of a process.
    fn act(&self, cache: &Texts, process: usize, random: u64) {
        let key = (random >> 8) as usize % KEYS;
        let floor = || self.floors[process][key].load(Ordering::SeqCst);
        match random % 16 {
            0..=5 => {
                let floor = floor();
                let found = cache.get_or_load(&name(key), || self.load(key)).unwrap();
                self.check(process, key, floor, Some(&found), "loads");
            }
            6..=8 => {
                let floor = floor();
                self.check(process, key, floor, cache.get(&name(key)).as_deref(), "gets");
            }
            9 | 10 => {
                let floors = [0, 1].map(|other| self.floors[process][(key + other) % KEYS].load(Ordering::SeqCst));
                let names = [name(key), name((key + 1) % KEYS)];
                let found = cache.get_or_load_many(&[&names[0], &names[1]], |missing| {
                    let number = |name: &&str| name[3..].parse().unwrap();
                    missing.iter().map(|name| self.load(number(name))).collect()
                });
                for (other, found) in found.unwrap().iter().enumerate() {
                    self.check(
                        process,
                        (key + other) % KEYS,
                        floors[other],
                        Some(found),
                        "loads with others",
                    );
                }
            }
            change => {
                let order = lock(&self.changing[key]);
                let version = self.source[key].fetch_add(1, Ordering::SeqCst) + 1;
                let confirmed = match change {
                    11 | 12 => cache.set(&name(key), version.to_string()),
                    13 => cache.set_many(&[(&name(key), version.to_string())]),
                    14 => cache.remove_many(&[&name(key)]),
                    _ => cache.remove(&name(key)),
                };
                self.floors[process][key].fetch_max(version, Ordering::SeqCst);
                if !confirmed {
                    // Until it is repeated, it may still be executed behind another's change.
                    until(|| cache.stats().unconfirmed == 0);
                }
                drop(order);
            }
        }
    }
}

/// Runs the processes, each with three threads, and then checks what is left.
fn race(
    seed: u64,
    faults: Faults,
    rounds: u64,
    build: impl Fn(TieredBuilder<str, String>) -> TieredBuilder<str, String>,
) {
    let network = Arc::new(Network::default());
    network.random.store(seed, Ordering::Relaxed);
    let process = |_| -> Texts {
        let builder = Tiered::builder("shop", "prices", Client(network.clone(), 0), Bytes);
        build(builder.max_entries(100)).build().unwrap()
    };
    let processes: Vec<Texts> = (0..PROCESSES).map(process).collect();
    let world = World::default();
    *lock(&network.faults) = faults;
    std::thread::scope(|scope| {
        for thread in 0..PROCESSES * 3 {
            let (world, processes, network) = (&world, &processes, &network);
            scope.spawn(move || {
                for _ in 0..rounds {
                    let process = thread % PROCESSES;
                    world.act(&processes[process], process, network.random());
                }
            });
        }
    });
    *lock(&network.faults) = Faults::default();
    network.execute_late(u64::MAX);
    until(|| processes.iter().all(|process| process.stats().unconfirmed == 0));
    for key in 0..KEYS {
        let last = world.source[key].load(Ordering::SeqCst).to_string();
        let later = process(0).get(&name(key));
        assert!(
            later.is_none() || later.as_ref() == Some(&last),
            "key {key}: {later:?}, not {last}"
        );
        // The others learn it: by announcements, or when their entries expire.
        for process in &processes {
            until(|| process.get(&name(key)).is_none_or(|found| found == last));
        }
    }
}

#[test]
fn processes_read_their_own_changes() {
    race(1, Faults::default(), 400, |builder| builder);
}

#[test]
fn processes_read_their_own_changes_while_the_network_fails() {
    let faults = Faults {
        unanswered: 40,
        late: 20,
        refused: 60,
        bus: 200,
        flush: 0,
    };
    race(2, faults, 30, |builder| builder.lease(Duration::from_millis(20)));
}

#[test]
fn processes_read_their_own_changes_without_announcements() {
    let faults = Faults {
        flush: 20,
        ..Faults::default()
    };
    for seed in 0..3 {
        race(seed, faults, 400, |builder| {
            builder
                .bus(false)
                .local_ttl(Duration::from_millis(3))
                .lease(Duration::from_millis(20))
        });
    }
}
