//! Caches with a second tier on real memcached servers, in several processes:
//! `make test-tiered-memcached`.
//!
//! Processes are runs of this test program itself: [`child`] is what they do. Tests with the Python
//! package are ignored unless they are included: `HOTSET_PYTHON` names an interpreter that has it.
#![cfg(unix)]

use hotset::tiered::{Bytes, Codec, Json, Memcached, Tiered, TieredBuilder};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

type Texts = Tiered<str, String>;

/// A memcached on a free port of the loopback interface.
struct Server {
    process: Child,
    port: u16,
    settings: Vec<String>,
}

impl Server {
    fn start(settings: &[&str]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings: Vec<_> = settings.iter().map(|&setting| setting.to_owned()).collect();
        let mut server = Self {
            process: spawn(&["-l", "127.0.0.1", "-p", &port.to_string()], &settings),
            port,
            settings,
        };
        server.answer();
        server
    }

    fn answer(&mut self) {
        while self.ask("version").is_none_or(|reply| !reply.starts_with("VERSION")) {
            assert!(self.process.try_wait().unwrap().is_none(), "memcached ended");
            std::thread::yield_now();
        }
    }

    /// Sends a command, and returns the first line of the reply.
    fn ask(&self, command: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.write_all(format!("{command}\r\nquit\r\n").as_bytes()).ok()?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).ok()?;
        reply.lines().next().map(str::to_owned)
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn signal(&self, signal: i32) {
        // SAFETY: the process is a child of this one that was not waited for.
        assert_eq!(unsafe { libc::kill(self.process.id() as i32, signal) }, 0);
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn restart(&mut self) {
        let port = self.port.to_string();
        self.process = spawn(&["-l", "127.0.0.1", "-p", &port], &self.settings);
        self.answer();
    }
}

fn spawn(place: &[&str], settings: &[String]) -> Child {
    let mut command = Command::new("memcached");
    command.args(["-u", "nobody", "-U", "0"]).args(place).args(settings);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
        .spawn()
        .expect("memcached is installed (`make tools-memcached`)")
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

fn three() -> [Server; 3] {
    [(); 3].map(|()| Server::start(&[]))
}

fn addresses(servers: &[Server]) -> Vec<String> {
    servers.iter().map(Server::address).collect()
}

/// Settings with which nothing times out on a busy machine, unless a server is stopped.
fn builder(addresses: &[String], codec: impl Codec<String>) -> TieredBuilder<str, String> {
    let servers = Memcached::open(addresses).unwrap();
    let builder = Tiered::builder("shop", "prices", servers, codec);
    let builder = builder.max_entries(10_000).ttl(Duration::from_secs(600));
    builder
        .timeout(Duration::from_secs(10))
        .connect_timeout(Duration::from_secs(10))
}

/// A cache whose first tier has hardly anything, so that reads ask the servers.
fn reader(addresses: &[String]) -> Texts {
    builder(addresses, Bytes)
        .local_ttl(Duration::from_millis(1))
        .build()
        .unwrap()
}

fn cache(servers: &[Server]) -> Texts {
    builder(&addresses(servers), Bytes).build().unwrap()
}

fn until(holds: impl Fn() -> bool) {
    while !holds() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn load(cache: &Texts, key: &str, value: &str) -> String {
    cache.get_or_load(key, || Ok::<_, ()>(value.to_owned())).unwrap()
}

/// Returns keys of each of the servers, by its number.
fn keys_by_server(servers: &[Server]) -> Vec<Vec<String>> {
    let cache = cache(servers);
    let mut all = vec![Vec::new(); servers.len()];
    let items = |server: &Server| {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.write_all(b"stats\r\nquit\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("STAT total_items "));
        line.unwrap().parse::<u64>().unwrap()
    };
    for nth in 0..30 {
        let key = format!("key{nth}");
        let before: Vec<_> = servers.iter().map(items).collect();
        assert!(cache.set(&key, "old".into()));
        let grown = servers
            .iter()
            .zip(before)
            .map(|(server, before)| items(server) > before);
        all[grown.into_iter().position(|grown| grown).unwrap()].push(key);
    }
    assert!(all.iter().all(|keys| keys.len() > 1), "{all:?}");
    all
}

/// What a child process does: one command per line of its input, one line of output for each.
#[test]
fn child() {
    let Ok(addresses) = std::env::var("HOTSET_MEMCACHED_CHILD") else {
        return;
    };
    let addresses: Vec<_> = addresses.split(',').map(str::to_owned).collect();
    let cache = reader(&addresses);
    let mut answers = std::io::stderr();
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let answer = match *line.split(' ').collect::<Vec<_>>() {
            ["get", key] => cache.get(key).unwrap_or("none".into()),
            ["set", key, value] => cache.set(key, value.into()).to_string(),
            ["load", key, value] => {
                let mut loaded = false;
                let found = cache.get_or_load(key, || {
                    loaded = true;
                    // Time for the others to find the lease.
                    std::thread::sleep(Duration::from_millis(100));
                    Ok::<_, ()>(value.to_owned())
                });
                format!("{} {loaded}", found.unwrap())
            }
            _ => panic!("{line}"),
        };
        writeln!(answers, "{answer}").unwrap();
    }
}

struct Process {
    child: Child,
    answers: Box<dyn BufRead>,
}

impl Process {
    fn start(servers: &[Server]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child", "--nocapture"]);
        command.env("HOTSET_MEMCACHED_CHILD", addresses(servers).join(","));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let answers = Box::new(BufReader::new(child.stderr.take().unwrap()));
        Self { child, answers }
    }

    /// Runs a script of the Python package's tests.
    fn python(script: &str, arguments: &[String]) -> Self {
        let python = std::env::var("HOTSET_PYTHON").expect("HOTSET_PYTHON names an interpreter");
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/bindings/python/tests/tier2/");
        let mut command = Command::new(python);
        command.arg(format!("{folder}{script}")).args(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let answers = Box::new(BufReader::new(child.stdout.take().unwrap()));
        Self { child, answers }
    }

    fn send(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    fn receive(&mut self) -> String {
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }

    fn run(&mut self, line: &str) -> String {
        self.send(line);
        self.receive()
    }

    /// Repeats a command until it is answered so.
    fn until(&mut self, line: &str, answer: &str) {
        while self.run(line) != answer {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[test]
fn changes_of_one_process_are_read_by_another() {
    let servers = three();
    let (here, mut there) = (reader(&addresses(&servers)), Process::start(&servers));
    for key in ["tea", "coffee", "milk", "sugar"] {
        assert!(here.set(key, "3".into()));
        there.until(&format!("get {key}"), "3");
        assert_eq!(there.run(&format!("set {key} 4")), "true");
        until(|| here.get(key).as_deref() == Some("4"));
        assert!(here.remove(key));
        there.until(&format!("get {key}"), "none");
    }
    let stats = here.stats();
    assert_eq!((stats.link, stats.bus, stats.servers.len()), ("up", "none", 3));
    assert_eq!(stats.counter("classic_servers"), 0);
}

#[test]
fn cold_key_is_loaded_by_one_of_eight_processes() {
    let servers = three();
    let mut all: Vec<_> = (0..8).map(|_| Process::start(&servers)).collect();
    for process in &mut all {
        assert_eq!(process.run("get other"), "none");
    }
    for (nth, process) in all.iter_mut().enumerate() {
        process.send(&format!("load tea {nth}"));
    }
    let answers: Vec<_> = all.iter_mut().map(Process::receive).collect();
    let loads = answers.iter().filter(|answer| answer.ends_with("true")).count();
    assert_eq!(loads, 1, "{answers:?}");
    let value = |answer: &str| answer.split(' ').next().unwrap().to_owned();
    assert!(
        answers.iter().all(|answer| value(answer) == value(&answers[0])),
        "{answers:?}"
    );
}

#[test]
fn expiration_tags_and_touch_work() {
    let servers = three();
    let (here, there) = (cache(&servers), reader(&addresses(&servers)));
    assert!(here.set("tea", "3".into()));
    assert!(here.expire("tea"));
    assert_eq!(load(&there, "tea", "4"), "4");
    assert!(here.touch("tea", hotset::tiered::Ttl::After(Duration::from_secs(900))));
    assert!(!here.touch("nothing", hotset::tiered::Ttl::Default));
    for key in ["a", "b", "c", "d", "e", "f"] {
        let tagged = |cache: &Texts, value: &str| {
            let load = || Ok::<_, ()>((value.to_owned(), hotset::tiered::Ttl::Default));
            cache.get_or_load_tagged(key, &["menu"], load).unwrap()
        };
        assert_eq!(tagged(&here, "5"), "5");
        assert!(here.invalidate_tag("menu"));
        assert_eq!(tagged(&there, "6"), "6");
    }
    assert!(here.clear());
    assert_eq!(reader(&addresses(&servers)).get("a"), None);
}

#[test]
fn many_keys_are_read_and_set_on_all_servers() {
    let servers = three();
    let (here, there) = (cache(&servers), cache(&servers));
    let keys: Vec<String> = (0..1_000).map(|nth| format!("key{nth}")).collect();
    let value = |nth: usize| nth.to_string().repeat(50);
    let pairs: Vec<_> = keys.iter().enumerate().map(|(nth, key)| (&**key, value(nth))).collect();
    assert!(here.set_many(&pairs));
    let borrowed: Vec<_> = keys.iter().map(|key| &**key).collect();
    let found = there.get_many(&borrowed);
    for (nth, found) in found.into_iter().enumerate() {
        assert_eq!(found, Some(value(nth)));
    }
}

#[test]
fn stopped_server_is_done_without_until_it_continues() {
    let servers = three();
    let keys = keys_by_server(&servers);
    let second = Duration::from_secs(1);
    let builder = builder(&addresses(&servers), Bytes)
        .timeout(second)
        .connect_timeout(second);
    let here = builder.build().unwrap();
    let there = reader(&addresses(&servers));
    assert_eq!(there.get(&keys[0][0]).as_deref(), Some("old"));
    servers[0].signal(libc::SIGSTOP);
    // Keys of the others are as before.
    assert!(here.set(&keys[1][0], "new".into()));
    assert_eq!(there.get(&keys[1][0]).as_deref(), Some("new"));
    assert!(!here.remove(&keys[0][0]));
    assert_eq!(load(&here, &keys[0][1], "loaded"), "loaded");
    until(|| here.stats().servers[0].0 == "down");
    assert_eq!(here.stats().servers[1].0, "up");
    servers[0].signal(libc::SIGCONT);
    until(|| here.stats().unconfirmed == 0);
    assert_eq!(load(&there, &keys[0][0], "new"), "new");
}

#[test]
fn killed_server_keeps_its_keys_and_is_used_again() {
    let mut servers = three();
    let keys = keys_by_server(&servers);
    let (here, there) = (reader(&addresses(&servers)), reader(&addresses(&servers)));
    servers[2].kill();
    assert!(!here.set(&keys[2][0], "lost".into()));
    assert_eq!(load(&there, &keys[2][0], "loaded"), "loaded");
    assert_eq!(there.get(&keys[0][0]).as_deref(), Some("old"));
    until(|| there.stats().servers[2].0 == "down");
    servers[2].restart();
    until(|| here.stats().servers[2].0 == "up" && here.stats().unconfirmed == 0);
    until(|| here.set(&keys[2][0], "new".into()));
    until(|| there.get(&keys[2][0]).as_deref() == Some("new"));
    // Nothing of it went to the others.
    let rest = keys[2].iter().filter(|key| there.get(key).is_some());
    assert_eq!(rest.count(), 1);
}

#[test]
fn restarted_server_is_empty_and_used() {
    let mut servers = [Server::start(&[])];
    let (here, there) = (reader(&addresses(&servers)), reader(&addresses(&servers)));
    for round in 0..3 {
        let value = round.to_string();
        until(|| here.set("tea", value.clone()));
        until(|| there.get("tea").as_deref() == Some(&value));
        servers[0].kill();
        servers[0].restart();
        until(|| there.stats().unconfirmed == 0 && there.get("tea").is_none());
    }
}

#[test]
fn flushed_values_are_loaded_again() {
    let servers = [Server::start(&[])];
    let here = reader(&addresses(&servers));
    assert!(here.set("tea", "3".into()));
    assert_eq!(servers[0].ask("flush_all").as_deref(), Some("OK"));
    // A flush may take effect at the next tick of the server's clock.
    until(|| here.get("tea").is_none());
    until(|| {
        load(&here, "tea", "4");
        here.get("tea").as_deref() == Some("4")
    });
}

#[test]
fn value_that_is_too_large_removes_the_old_one() {
    let servers = [Server::start(&[])];
    let (here, there) = (cache(&servers), reader(&addresses(&servers)));
    assert!(here.set("tea", "old".into()));
    assert_eq!(there.get("tea").as_deref(), Some("old"));
    let large = "x".repeat(1 << 20);
    assert!(!here.set("tea", large.clone()));
    assert_eq!(here.get("tea"), Some(large));
    until(|| there.get("tea").is_none());
    // The largest of the default.
    let longest = "y".repeat((1 << 20) - 2_048);
    assert!(here.set("tea", longest.clone()));
    until(|| there.get("tea").as_ref() == Some(&longest));
    // A server with a smaller item size than the program expects refuses.
    let small = [Server::start(&["-o", "slab_chunk_max=32768", "-I", "64k", "-m", "64"])];
    let (here, there) = (cache(&small), reader(&addresses(&small)));
    assert!(here.set("tea", "old".into()));
    assert!(!here.set("tea", "x".repeat(100_000)));
    until(|| there.get("tea").is_none());
    assert_eq!(here.stats().link, "up");
}

#[test]
fn keys_of_more_than_250_bytes_are_used() {
    let servers = [Server::start(&[])];
    let named = || {
        let tier2 = Memcached::open([servers[0].address()]).unwrap();
        let builder = Tiered::builder("p".repeat(240), "prices", tier2, Bytes);
        let patient = Duration::from_secs(10);
        let builder = builder.max_entries(10).timeout(patient).connect_timeout(patient);
        let cache: Texts = builder.build().unwrap();
        cache
    };
    let (here, there) = (named(), named());
    assert!(here.set("tea", "3".into()));
    assert!(here.set("coffee", "4".into()));
    assert_eq!(there.get("tea").as_deref(), Some("3"));
    assert_eq!(load(&there, "milk", "5"), "5");
    assert!(there.clear());
    assert_eq!(named().get("coffee"), None);
}

#[test]
fn server_at_a_socket_is_used() {
    let folder = std::env::temp_dir().join(format!("hotset-tiered-memcached-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let path: PathBuf = folder.join("memcached.sock");
    let address = path.to_str().unwrap().to_owned();
    let mut command = Command::new("memcached");
    // It makes the socket as this user.
    command.args(["-u", "root", "-s", &address]);
    let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let server = Server {
        process,
        port: 0,
        settings: Vec::new(),
    };
    let cache = reader(&["unix:".to_owned() + &address]);
    until(|| cache.set("tea", "3".into()));
    until(|| cache.get("tea").as_deref() == Some("3"));
    drop(server);
    assert_eq!(load(&cache, "coffee", "4"), "4");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
#[ignore = "HOTSET_PYTHON must name an interpreter with the package"]
fn values_are_exchanged_with_python() {
    let servers = three();
    let all = addresses(&servers);
    for codec in ["bytes", "json"] {
        let open = |codec: &str| match codec {
            "bytes" => builder(&all, Bytes).local_ttl(Duration::from_millis(1)).build(),
            _ => builder(&all, Json).local_ttl(Duration::from_millis(1)).build(),
        };
        let here = open(codec).unwrap();
        let mut python = Process::python("memcached_peer.py", &[codec.into(), all.join(",")]);
        for key in ["tea", "a{b}%\u{e9}:;", &"x".repeat(300)] {
            assert!(here.set(key, "from Rust".replace(' ', "-")));
            python.until(&format!("get {key}"), "from-Rust");
            assert_eq!(python.run(&format!("set {key} from-Python")), "True");
            until(|| here.get(key).as_deref() == Some("from-Python"));
            assert!(here.remove(key));
            python.until(&format!("get {key}"), "None");
            assert_eq!(load(&here, key, "loaded"), "loaded");
            assert_eq!(python.run(&format!("load {key} other")), "loaded");
            assert_eq!(python.run(&format!("remove {key}")), "True");
            until(|| here.get(key).is_none());
            assert_eq!(python.run(&format!("set {key} again")), "True");
            // Generations of each server.
            assert!(here.clear());
            python.until(&format!("get {key}"), "None");
            assert_eq!(python.run(&format!("set {key} again")), "True");
            assert_eq!(python.run("clear"), "True");
            until(|| here.get(key).is_none());
        }
    }
}

#[test]
#[ignore = "HOTSET_PYTHON must name an interpreter with the package"]
fn server_without_meta_commands_is_used() {
    let mut python = Process::python("memcached_classic.py", &[]);
    let address = [python.receive()];
    let (here, there) = (reader(&address), reader(&address));
    assert!(here.set("tea", "3".into()));
    assert_eq!(there.get("tea").as_deref(), Some("3"));
    assert!(there.remove("tea"));
    until(|| here.get("tea").is_none());
    assert_eq!(load(&here, "tea", "4"), "4");
    until(|| there.get("tea").as_deref() == Some("4"));
    assert!(there.expire("tea"));
    until(|| load(&here, "tea", "5") == "5");
    let pairs: Vec<_> = ["a", "b", "c"].map(|key| (key, key.to_owned())).into();
    assert!(here.set_many(&pairs));
    let found: Vec<_> = there.get_many(&["a", "b", "c"]);
    assert_eq!(found, ["a", "b", "c"].map(|value| Some(value.to_owned())));
    assert_eq!(here.stats().counter("classic_servers"), 1);
}
