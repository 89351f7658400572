//! Caches with a second tier on a real redis-server, in several processes: `make test-tiered`.
//!
//! Processes are runs of this test program itself: [`child`] is what they do.
#![cfg(unix)]

use hotset::tiered::{Bytes, Redis, Tiered};
use redis_server::Server;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

#[path = "common/redis_server.rs"]
mod redis_server;

type Texts = Tiered<str, String>;

fn cache(url: &str) -> Texts {
    let redis = Redis::open(url).unwrap();
    let builder = Tiered::builder("shop", "prices", redis, Bytes);
    builder
        .max_entries(1_000)
        .ttl(Duration::from_secs(600))
        .build()
        .unwrap()
}

fn until(holds: impl Fn() -> bool) {
    while !holds() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn armed(cache: &Texts) {
    until(|| cache.stats().bus == "armed");
}

fn load(cache: &Texts, key: &str, value: &str) -> String {
    cache.get_or_load(key, || Ok::<_, ()>(value.to_owned())).unwrap()
}

/// What a child process does: one command per line of its input, one line of output for each.
#[test]
fn child() {
    let Ok(url) = std::env::var("HOTSET_TIERED_CHILD") else {
        return;
    };
    let cache = cache(&url);
    let mut answers = std::io::stderr();
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match *words {
            ["arm"] => {
                armed(&cache);
                "armed".into()
            }
            ["get", key] => cache.get(key).unwrap_or("none".into()),
            ["set", key, value] => cache.set(key, value.into()).to_string(),
            ["remove", key] => cache.remove(key).to_string(),
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
    answers: BufReader<std::process::ChildStderr>,
}

impl Process {
    fn start(server: &Server) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child", "--nocapture"]);
        command.env("HOTSET_TIERED_CHILD", server.url());
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let answers = BufReader::new(child.stderr.take().unwrap());
        Self { child, answers }
    }

    fn send(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    fn receive(&mut self) -> String {
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        answer.trim().to_owned()
    }

    fn run(&mut self, line: &str) -> String {
        self.send(line);
        self.receive()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[test]
fn changes_of_one_process_are_seen_by_another() {
    let server = Server::start();
    let (here, mut there) = (cache(&server.url()), Process::start(&server));
    armed(&here);
    assert_eq!(there.run("arm"), "armed");
    assert!(here.set("tea", "3".into()));
    assert_eq!(there.run("get tea"), "3");
    assert_eq!(there.run("set tea 4"), "true");
    until(|| here.get("tea").as_deref() == Some("4"));
    assert_eq!(there.run("remove tea"), "true");
    until(|| here.get("tea").is_none());
}

#[test]
fn a_cold_key_is_loaded_by_one_of_eight_processes() {
    let server = Server::start();
    let mut all: Vec<_> = (0..8).map(|_| Process::start(&server)).collect();
    for process in &mut all {
        assert_eq!(process.run("arm"), "armed");
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
fn a_key_whose_loading_process_is_killed_is_loaded_by_another() {
    let server = Server::start();
    let (here, mut there) = (cache(&server.url()), Process::start(&server));
    assert_eq!(there.run("arm"), "armed");
    there.send("load tea 3");
    until(|| {
        let keys: Vec<String> = redis::cmd("KEYS")
            .arg("shop:1*")
            .query(&mut server.connection())
            .unwrap();
        !keys.is_empty()
    });
    drop(there);
    let value = load(&here, "tea", "4");
    // The process may have stored its value before it was killed.
    assert!(value == "4" || value == "3");
}

#[test]
fn a_stopped_server_is_done_without_until_it_continues() {
    let server = Server::start();
    let (here, there) = (cache(&server.url()), cache(&server.url()));
    armed(&here);
    armed(&there);
    assert!(here.set("tea", "old".into()));
    server.signal(libc::SIGSTOP);
    assert_eq!(load(&here, "coffee", "5"), "5");
    assert!(!here.remove("tea"));
    assert_eq!(here.get("tea"), None);
    until(|| here.stats().link == "down");
    server.signal(libc::SIGCONT);
    until(|| here.stats().unconfirmed == 0);
    until(|| there.get("tea").is_none());
    assert_eq!(load(&there, "tea", "new"), "new");
}

#[test]
fn a_killed_server_is_used_again_once_it_is_back() {
    let mut server = Server::start();
    let here = cache(&server.url());
    armed(&here);
    assert!(here.set("tea", "3".into()));
    server.kill();
    assert!(!here.set("tea", "4".into()));
    assert_eq!(load(&here, "coffee", "5"), "5");
    server.restart();
    until(|| here.set("tea", "6".into()));
    armed(&here);
    until(|| here.get("tea").as_deref() == Some("6"));
}

#[test]
fn values_of_other_programs_are_misses() {
    let server = Server::start();
    let here = cache(&server.url());
    assert!(here.set("tea", "3".into()));
    let mut raw = server.connection();
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("shop:1*").query(&mut raw).unwrap();
    for bytes in [&b""[..], b"plain", &[0xff; 100], b"\xf1h\x01\x01short"] {
        () = redis::cmd("SET").arg(&keys[0]).arg(bytes).query(&mut raw).unwrap();
        assert_eq!(cache(&server.url()).get("tea"), None);
        assert_eq!(load(&cache(&server.url()), "tea", "3"), "3");
        assert_eq!(cache(&server.url()).get("tea").as_deref(), Some("3"));
    }
    // A list where a value should be: its errors are answers.
    () = redis::cmd("DEL").arg(&keys[0]).query(&mut raw).unwrap();
    () = redis::cmd("LPUSH").arg(&keys[0]).arg("x").query(&mut raw).unwrap();
    assert_eq!(load(&cache(&server.url()), "tea", "4"), "4");
}

#[test]
fn an_invalidation_arrives_although_the_bus_was_idle() {
    let server = Server::start();
    let (here, there) = (cache(&server.url()), cache(&server.url()));
    armed(&here);
    armed(&there);
    for round in 0..5 {
        let value = round.to_string();
        assert!(here.set("tea", value.clone()));
        until(|| there.get("tea").as_deref() == Some(&value));
        let canaries = there.stats().counter("canaries");
        until(|| there.stats().counter("canaries") > canaries);
    }
    assert_eq!(there.stats().counter("bus_lost"), 0);
}

#[test]
fn expire_scripts_and_tags_work_on_a_server() {
    let server = Server::start();
    let (here, there) = (cache(&server.url()), cache(&server.url()));
    assert!(here.set("tea", "3".into()));
    assert!(here.expire("tea"));
    assert_eq!(load(&there, "tea", "4"), "4");
    assert!(here.clear());
    until(|| there.get("tea").is_none());
    assert_eq!(load(&here, "tea", "5"), "5");
    assert!(here.invalidate_tag("menu"));
    assert_eq!(here.get("tea").as_deref(), Some("5"));
}

#[test]
fn a_stale_value_is_returned_while_another_process_loads() {
    let server = Server::start();
    let stale = || -> Texts {
        let builder = Tiered::builder("shop", "prices", Redis::open(&*server.url()).unwrap(), Bytes);
        let builder = builder.max_entries(10).ttl(Duration::from_secs(600));
        builder
            .stale_while_revalidate(Duration::from_secs(600))
            .build()
            .unwrap()
    };
    let (here, there) = (stale(), stale());
    armed(&here);
    armed(&there);
    assert!(here.set("tea", "old".into()));
    assert!(here.expire("tea"));
    let loaded = here.get_or_load("tea", || {
        assert_eq!(load(&there, "tea", "other"), "old");
        Ok::<_, ()>("new".to_owned())
    });
    assert_eq!(loaded.unwrap(), "new");
    until(|| there.get("tea").as_deref() == Some("new"));
}

#[test]
fn an_idle_connection_that_the_server_closed_is_not_used() {
    let server = Server::start();
    // With the bus, canaries would use the connection every second.
    let builder = Tiered::builder("shop", "prices", Redis::open(&*server.url()).unwrap(), Bytes);
    let cache: Texts = builder.max_entries(10).bus(false).build().unwrap();
    assert!(cache.set("a", "1".into()));
    // Longer than a connection is used without a check.
    std::thread::sleep(Duration::from_millis(1_100));
    let mut other = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let killed: i64 = redis::cmd("CLIENT")
        .arg("KILL")
        .arg("TYPE")
        .arg("normal")
        .query(&mut other)
        .unwrap();
    assert!(killed >= 1);
    assert!(cache.set("a", "2".into()));
}
