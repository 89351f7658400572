//! Processes, servers and the network between them: all that is undecided is decided by one source
//! of choices.
//!
//! Every connection delivers in order; connections are independent. What a client sent before it
//! closed a connection may arrive at any later time, as it does where the kernel sends it again.
//! Time passes when a timer is chosen.

use super::memcached::{self, Cas};
use super::oracle::Oracle;
use super::process::{Process, State, generation_keys};
use super::server::{Answer, Command, Server};
use crate::tier2::{NamespaceSettings, Rule, SLOTS, Settings, slot};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub(super) const MS: u64 = 1_000_000;
/// How long a process waits for an answer.
pub(super) const TIMEOUT: u64 = 100 * MS;

/// Mends that are the face's: what a face must not leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Duty {
    /// Tier 1 drops the key again after the command.
    DropTwice,
    /// A removal is announced also if the key was absent.
    Announce,
    /// The soft expiration removes leases.
    ExpireRemovesLeases,
    /// A mark is renewed before each marked action, and belongs to that request.
    MarkPerRequest,
    /// Hits compare with the clock.
    TrustByClock,
    /// Joins compare with the clock.
    JoinByClock,
    /// A caller leads nothing while it waits.
    NeverWaitWhileLeading,
    /// A child makes a tier of its own.
    TierPerProcess,
    /// Tier 1 is cleared after the canary came back.
    ClearAfterCanary,
    /// Echoes are not distinguished: every message removes.
    EveryMessageRemoves,
    /// A value is inserted only under a whole mark.
    MarkChecked,
    /// A clear, and the end of trust, void the marks of all loads.
    ClearVoidsLoads,
    /// A fill is conditional on its lease.
    ConditionalFill,
    /// Canaries, and not the connection, are what trust depends on.
    Canary,
    /// Generations belong to ranges of slots, and not to the servers that have these when a process
    /// starts.
    GenerationBySlots,
    /// memcached compares CAS numbers.
    CasCompared,
    /// A CAS number is sent only on a connection that was open when it was read.
    CasOfConnection,
    /// A value is put in the place of a placeholder, under its CAS number.
    PutUnderCas,
}

#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) settings: Settings,
    pub(super) namespace: NamespaceSettings,
    pub(super) mends_off: BTreeSet<Rule>,
    pub(super) duties_off: BTreeSet<Duty>,
    /// The servers are memcached.
    pub(super) memcached: bool,
}

impl Default for Options {
    fn default() -> Self {
        let namespace = NamespaceSettings {
            ttl: 20_000 * MS,
            local_ttl: 10_000 * MS,
            unsynced_ttl: 1_000 * MS,
            load_timeout: 5_000 * MS,
            ..Default::default()
        };
        Self {
            settings: Settings::default(),
            namespace,
            mends_off: BTreeSet::new(),
            duties_off: BTreeSet::new(),
            memcached: false,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) request: u64,
    pub(super) command: Command,
    /// Sent behind ASKING.
    pub(super) asking: bool,
    pub(super) about: Vec<(usize, u64)>,
}

/// Where a slot is that is not where it was at first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) node: u32,
    /// Where its keys are being moved.
    pub(super) to: Option<u32>,
}

#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) process: usize,
    pub(super) node: u32,
    pub(super) server: usize,
    pub(super) epoch: u32,
    pub(super) opened: u64,
    pub(super) up: VecDeque<Packet>,
    pub(super) down: VecDeque<(u64, Answer)>,
    /// The client has closed it: nothing is received any more, what was sent is under way.
    pub(super) closed: bool,
    /// The server has closed it, or it was killed: nothing arrives there any more.
    pub(super) dead: bool,
    pub(super) hold_up: bool,
    pub(super) hold_down: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A fiber that is ready: process and number.
    Run(usize, usize),
    Up(usize),
    Down(usize),
    Timer,
}

pub(super) struct World {
    pub(super) now: u64,
    pub(super) options: Options,
    pub(super) servers: Vec<Server>,
    /// By node: which server is its master.
    pub(super) masters: Vec<usize>,
    /// The keys of the generations.
    pub(super) generations: Vec<Vec<u8>>,
    /// Slots that were moved, or are being moved.
    pub(super) places: BTreeMap<u16, Place>,
    pub(super) connections: Vec<Connection>,
    pub(super) processes: Vec<Process>,
    pub(super) oracle: Oracle,
    pub(super) requests: u64,
    pub(super) identities: u64,
    pub(super) log: Vec<String>,
    pub(super) logs: bool,
    /// Loads of each key that began.
    pub(super) loads: Vec<u64>,
    pub(super) steps: u64,
}

fn new_cas(options: &Options) -> Cas {
    Cas::new(options.duties_off.contains(&Duty::CasCompared))
}

impl World {
    pub(super) fn new(options: Options, nodes: usize) -> Self {
        let servers = (0..nodes).map(|node| Server::new(&format!("server {node}"))).collect();
        let mut world = Self {
            now: 3_600_000 * MS,
            options,
            servers,
            masters: (0..nodes).collect(),
            generations: generation_keys(nodes, |slot| u32::from(slot) * nodes as u32 / u32::from(SLOTS)),
            places: BTreeMap::new(),
            connections: Vec::new(),
            processes: Vec::new(),
            oracle: Oracle::default(),
            requests: 0,
            identities: 0,
            log: Vec::new(),
            logs: std::env::var_os("HOTSET_SIM_LOG").is_some(),
            loads: vec![0; 16],
            steps: 0,
        };
        for server in &mut world.servers {
            server.faults.silent_remove = world.options.duties_off.contains(&Duty::Announce);
            server.faults.expire_spares_leases = world.options.duties_off.contains(&Duty::ExpireRemovesLeases);
            if world.options.memcached {
                server.cas = Some(new_cas(&world.options));
                server.fences = false;
            }
        }
        world
    }

    pub(super) fn has(&self, duty: Duty) -> bool {
        !self.options.duties_off.contains(&duty)
    }

    pub(super) fn note(&mut self, what: impl FnOnce() -> String) {
        if self.logs {
            let line = format!("{:>9.3} {}", (self.now % (3_600_000 * MS)) as f64 / 1e6, what());
            self.log.push(line);
        }
    }

    /// Opens a connection to the node's present master. Returns `None` where it is refused.
    pub(super) fn connect(&mut self, process: usize, node: u32) -> Option<usize> {
        let server = self.masters[node as usize];
        if !self.servers[server].alive {
            return None;
        }
        self.connections.push(Connection {
            process,
            node,
            server,
            epoch: 0,
            opened: self.now,
            up: VecDeque::new(),
            down: VecDeque::new(),
            closed: false,
            dead: false,
            hold_up: false,
            hold_down: false,
        });
        Some(self.connections.len() - 1)
    }

    /// Where a slot is.
    pub(super) fn place(&self, slot: u16) -> Place {
        let node = u32::from(slot) * self.masters.len() as u32 / u32::from(SLOTS);
        self.places.get(&slot).copied().unwrap_or(Place { node, to: None })
    }

    /// Begins to move the slot of a key to another node.
    pub(super) fn begin_move(&mut self, key: &[u8], to: u32) {
        let place = self.place(slot(key));
        if place.node != to {
            self.note(|| format!("slot of {} is moving to node {to}", text(key)));
            self.places.insert(slot(key), Place { to: Some(to), ..place });
        }
    }

    /// Moves a key of a slot that is being moved.
    pub(super) fn migrate(&mut self, key: &[u8]) {
        let place = self.place(slot(key));
        let Some(to) = place.to else { return };
        let (from, to) = (self.masters[place.node as usize], self.masters[to as usize]);
        if self.servers[from].alive
            && self.servers[to].alive
            && let Some(mut item) = self.servers[from].data.remove(key)
        {
            self.note(|| format!("{} migrates", text(key)));
            // The time that is left is what is sent.
            let clocks = self.servers[to].clock - self.servers[from].clock;
            item.expires = item.expires.map(|at| at.saturating_add_signed(clocks));
            self.servers[to].data.insert(key.to_vec(), item);
            self.push(from, vec![key.to_vec()], &[]);
            self.push(to, vec![key.to_vec()], &[]);
        }
    }

    /// Moves what is left of a slot, and then the slot. Failovers lose nothing of that.
    pub(super) fn end_move(&mut self, slot_number: u16) {
        let place = self.place(slot_number);
        let Some(to) = place.to else { return };
        let from = self.masters[place.node as usize];
        for key in self.keys_of(from, slot_number) {
            self.migrate(&key);
        }
        self.reassign(slot_number, to);
    }

    /// Gives a slot to another node. What its previous node still has of it, that node deletes.
    pub(super) fn reassign(&mut self, slot_number: u16, to: u32) {
        let from = self.masters[self.place(slot_number).node as usize];
        self.note(|| format!("slot {slot_number} is on node {to}"));
        for key in self.keys_of(from, slot_number) {
            self.servers[from].data.remove(&key);
        }
        self.servers[from].past.clear();
        self.servers[self.masters[to as usize]].past.clear();
        self.places.insert(slot_number, Place { node: to, to: None });
    }

    pub(super) fn keys_of(&self, server: usize, slot_number: u16) -> Vec<Vec<u8>> {
        let keys = self.servers[server].data.keys();
        keys.filter(|key| slot(key) == slot_number).cloned().collect()
    }

    pub(super) fn end_moves(&mut self) {
        let moving = self.places.iter().filter(|(_, place)| place.to.is_some());
        for slot_number in moving.map(|(slot, _)| *slot).collect::<Vec<_>>() {
            self.end_move(slot_number);
        }
    }

    pub(super) fn send(&mut self, connection: usize, command: Command, about: Vec<(usize, u64)>) -> u64 {
        self.send_asking(connection, command, about, false)
    }

    pub(super) fn send_asking(
        &mut self,
        connection: usize,
        command: Command,
        about: Vec<(usize, u64)>,
        asking: bool,
    ) -> u64 {
        self.requests += 1;
        let request = self.requests;
        self.note(|| format!("  c{connection} <- {}", brief(&command)));
        let one = &mut self.connections[connection];
        if one.dead {
            one.down.push_back((request, Answer::Reset));
        } else {
            one.up.push_back(Packet {
                request,
                command,
                asking,
                about,
            });
        }
        request
    }

    /// All that can happen now, the usual one first.
    pub(super) fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        for (at, process) in self.processes.iter().enumerate().filter(|(_, process)| process.runs()) {
            let ready = process
                .fibers
                .iter()
                .enumerate()
                .filter(|(_, fiber)| matches!(fiber.state, State::Ready));
            events.extend(ready.map(|(number, _)| Event::Run(at, number)));
        }
        for (at, connection) in self.connections.iter().enumerate() {
            let server = &self.servers[connection.server];
            if !connection.up.is_empty() && !connection.hold_up && !connection.dead && server.alive && !server.stopped {
                events.push(Event::Up(at));
            }
            let process = &self.processes[connection.process];
            if !connection.down.is_empty()
                && !connection.hold_down
                && !connection.closed
                && process.runs()
                && process.receives(at)
            {
                events.push(Event::Down(at));
            }
        }
        if self.next_timer().is_some() {
            events.push(Event::Timer);
        }
        events
    }

    pub(super) fn next_timer(&self) -> Option<u64> {
        let running = self.processes.iter().filter(|process| process.runs());
        running
            .flat_map(|process| process.fibers.iter().filter_map(|fiber| fiber.state.deadline()))
            .min()
    }

    pub(super) fn perform(&mut self, event: Event) {
        self.steps += 1;
        // Nothing takes no time at all.
        self.now += 10_000;
        match event {
            Event::Run(process, fiber) => self.run_fiber(process, fiber),
            Event::Up(connection) => {
                self.deliver_up(connection);
                self.check_servers();
            }
            Event::Down(connection) => self.deliver_down(connection),
            Event::Timer => {
                let at = self.next_timer().expect("chosen because there is one");
                self.pass_until(at);
            }
        }
    }

    /// Time passes; what was waiting for it is ready.
    pub(super) fn pass_until(&mut self, at: u64) {
        self.now = self.now.max(at);
        for process in 0..self.processes.len() {
            if !self.processes[process].runs() {
                continue;
            }
            for fiber in 0..self.processes[process].fibers.len() {
                let due = self.processes[process].fibers[fiber]
                    .state
                    .deadline()
                    .is_some_and(|deadline| deadline <= self.now);
                if due {
                    self.expire_timer(process, fiber);
                }
            }
        }
    }

    fn deliver_up(&mut self, at: usize) {
        let Some(packet) = self.connections[at].up.pop_front() else {
            return;
        };
        let number = self.connections[at].server;
        let mut pushes = Vec::new();
        let now = self.now;
        if let Command::Kill(victim) = packet.command
            && self.connections.get(victim).is_some_and(|one| one.server == number)
        {
            self.kill_connection(victim);
        }
        let is_master = self.masters.contains(&number);
        self.servers[number].expire(now, &mut pushes);
        let redirects = packet
            .command
            .keys()
            .into_iter()
            .map(|key| self.redirect(number, key, packet.asking));
        let redirects: Vec<Option<Answer>> = redirects.collect();
        let server = &mut self.servers[number];
        let answer = match (redirects.iter().flatten().next().cloned(), &packet.command) {
            (None, command) => server.execute(at, command, now, &mut pushes),
            (Some(redirect), Command::Claim { target, token, px, .. }) => {
                // Of two commands in one packet, the other one is executed.
                if redirects[0].is_none() {
                    let (key, value, px) = (target.clone(), token.clone(), Some(*px));
                    server.execute(at, &Command::SetNxGet { key, value, px }, now, &mut pushes);
                }
                redirect
            }
            (Some(redirect), _) => redirect,
        };
        let changes = matches!(
            (&packet.command, &answer),
            (
                Command::Set { .. } | Command::Remove(_) | Command::Expire { .. },
                Answer::Flag(true)
            )
        );
        let changes = changes
            || match (&packet.command, &answer) {
                (Command::Memcached(commands), Answer::Memcached(replies)) => commands
                    .iter()
                    .zip(replies)
                    .any(|(command, reply)| memcached::changes(command, reply)),
                _ => false,
            };
        self.note(|| {
            format!(
                "  c{at} server {number} {}: {}",
                brief(&packet.command),
                brief_answer(&answer)
            )
        });
        let mut about = Vec::new();
        if changes {
            about = packet.about.clone();
            if is_master {
                for &(key, version) in &packet.about {
                    self.oracle.executed(key, version, now);
                }
            }
        }
        if !self.connections[at].dead {
            self.connections[at].down.push_back((packet.request, answer));
        }
        self.push(number, pushes, &about);
    }

    /// A master's reply for a key that it does not have.
    fn redirect(&self, server: usize, key: &[u8], asking: bool) -> Option<Answer> {
        let here = self.masters.iter().position(|master| *master == server)? as u32;
        let place = self.place(slot(key));
        match place.to {
            _ if place.node != here => (place.to != Some(here) || !asking).then_some(Answer::Moved(place.node)),
            Some(to) if !self.servers[server].data.contains_key(key) => Some(Answer::Ask(to)),
            _ => None,
        }
    }

    /// Announces changed keys to the connections that track them.
    pub(super) fn push(&mut self, server: usize, keys: Vec<Vec<u8>>, about: &[(usize, u64)]) {
        for key in keys {
            for at in 0..self.servers[server].trackers.len() {
                let connection = self.servers[server].trackers[at];
                let one = &mut self.connections[connection];
                if !one.dead {
                    one.down.push_back((0, Answer::Push(key.clone(), about.to_vec())));
                }
            }
        }
    }

    fn deliver_down(&mut self, at: usize) {
        let Some((request, answer)) = self.connections[at].down.pop_front() else {
            return;
        };
        self.received(at, request, answer);
    }

    pub(super) fn kill_connection(&mut self, at: usize) {
        let Some(one) = self.connections.get_mut(at) else {
            return;
        };
        if !one.dead {
            one.dead = true;
            one.up.clear();
            one.down.push_back((0, Answer::Reset));
        }
    }

    // Faults.

    pub(super) fn kill_server(&mut self, server: usize) {
        self.note(|| format!("server {server} dies"));
        self.servers[server].alive = false;
        for at in 0..self.connections.len() {
            if self.connections[at].server == server {
                self.kill_connection(at);
            }
        }
        self.servers[server].trackers.clear();
    }

    /// Starts a server again, which keeps nothing.
    pub(super) fn restart_server(&mut self, server: usize) {
        self.identities += 1;
        let identity = format!("again {}", self.identities);
        self.note(|| format!("server {server} starts as {identity}"));
        let one = &mut self.servers[server];
        one.alive = true;
        one.stopped = false;
        one.identity = identity.into();
        one.data.clear();
        one.past.clear();
        if self.options.memcached {
            // They begin anew, too.
            one.cas = Some(new_cas(&self.options));
        }
        self.oracle.failover();
    }

    /// Makes a replica the node's master, which has not got the last `lost` writes. The previous
    /// master is a replica.
    pub(super) fn fail_over(&mut self, node: usize, lost: usize, cut: bool) {
        // (A failover amid a move may leave two copies of a key, which is the server's fault.)
        self.end_moves();
        self.identities += 1;
        let old = self.masters[node];
        let mut server = Server::new(&format!("promoted {}", self.identities));
        let past = &self.servers[old].past;
        server.data = match past.len().checked_sub(lost) {
            Some(at) if at < past.len() => past[at].clone(),
            _ if lost == 0 => self.servers[old].data.clone(),
            _ => past.front().cloned().unwrap_or_else(|| self.servers[old].data.clone()),
        };
        server.faults = self.servers[old].faults;
        server.fences = self.servers[old].fences;
        server.clock = self.servers[old].clock + 7;
        self.servers[old].replica = true;
        self.servers.push(server);
        self.masters[node] = self.servers.len() - 1;
        self.oracle.failover();
        self.note(|| format!("node {node} fails over, {lost} writes are lost"));
        if cut {
            for at in 0..self.connections.len() {
                if self.connections[at].server == old {
                    self.kill_connection(at);
                }
            }
        }
    }

    pub(super) fn evict(&mut self, node: usize, key: &[u8]) {
        let server = self.masters[node];
        if self.servers[server].data.remove(key).is_some() {
            self.note(|| format!("{} is evicted", text(key)));
            self.push(server, vec![key.to_vec()], &[]);
        }
    }

    pub(super) fn flush(&mut self, node: usize) {
        let server = self.masters[node];
        self.note(|| format!("node {node} is flushed"));
        self.servers[server].data.clear();
        for at in self.servers[server].trackers.clone() {
            if !self.connections[at].dead {
                self.connections[at].down.push_back((0, Answer::Flushed));
            }
        }
    }

    // Driving.

    /// Performs events until nothing is left but timers; returns whether there was a violation.
    pub(super) fn run_until_quiet(&mut self) {
        for _ in 0..20_000 {
            let events = self.events();
            let Some(&event) = events.iter().find(|event| **event != Event::Timer) else {
                return;
            };
            self.perform(event);
        }
        panic!(
            "it never settles: {:?}",
            self.log.iter().rev().take(40).collect::<Vec<_>>()
        );
    }

    /// Lets `ms` pass, with everything that happens on the way.
    pub(super) fn pass(&mut self, ms: u64) {
        let end = self.now + ms * MS;
        loop {
            self.run_until_quiet();
            match self.next_timer() {
                Some(at) if at <= end => self.pass_until(at),
                _ => break,
            }
        }
        self.now = self.now.max(end);
        self.run_until_quiet();
    }

    /// Moves the clock, and nothing else: what is due runs when it is let to.
    pub(super) fn jump(&mut self, ms: u64) {
        self.now += ms * MS;
    }
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(super) fn brief(command: &Command) -> String {
    match command {
        Command::Hello => "HELLO".into(),
        Command::Subscribe => "TRACK".into(),
        Command::Ping(number) => format!("PING {number}"),
        Command::Canary(key) => format!("CANARY {}", text(key)),
        Command::Get(key) => format!("GET {}", text(key)),
        Command::SetNxGet { key, value, .. } => format!("SETNX {} {}", text(key), show(value)),
        Command::Swap {
            key, expected, value, ..
        } => format!("SWAP {} {} -> {}", text(key), show(expected), show(value)),
        Command::Set { key, value, .. } => format!("SET {} {}", text(key), show(value)),
        Command::Release { key, .. } => format!("RELEASE {}", text(key)),
        Command::Remove(key) => format!("REMOVE {}", text(key)),
        Command::Expire { key, .. } => format!("EXPIRE {}", text(key)),
        Command::Touch { key, .. } => format!("TOUCH {}", text(key)),
        Command::Claim { target, .. } => format!("CLAIM {}", text(target)),
        Command::Kill(connection) => format!("KILL c{connection}"),
        Command::Memcached(commands) => {
            let lines = commands.iter().map(|command| {
                let end = command.iter().position(|&byte| byte == b'\r').unwrap_or(command.len());
                text(&command[..end])
            });
            lines.collect::<Vec<_>>().join(", ")
        }
    }
}

fn show(value: &[u8]) -> String {
    match crate::tier2::parse(value) {
        crate::tier2::Parsed::Frame(frame) => {
            format!("{:?} {:?}", frame.kind, super::process::payload(&value[frame.offset..]))
        }
        crate::tier2::Parsed::Lease(stamp) => format!("lease {:x}.{}", stamp[0], stamp[8]),
        other if value.len() != 16 => format!("{other:?}"),
        _ => format!("generation {:x}.{}", value[0], value[8]),
    }
}

fn brief_answer(answer: &Answer) -> String {
    match answer {
        Answer::Value(Some(value)) => show(value),
        Answer::Value(None) => "nil".into(),
        Answer::Claim(won, value) => format!("{won} {}", value.as_deref().map_or("nil".into(), show)),
        Answer::Hello { identity, .. } => text(identity),
        Answer::Memcached(replies) => replies
            .iter()
            .map(|reply| text(&reply[..reply.len().min(16)]))
            .collect(),
        other => format!("{other:?}"),
    }
}
