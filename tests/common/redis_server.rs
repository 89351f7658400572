//! Real redis-servers for tests and benchmarks, on free ports of the loopback interface.
// Not each of them uses all of it.
#![allow(dead_code)]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A redis-server with a folder of its own; it ends with this.
pub(crate) struct Server {
    process: Child,
    pub(crate) port: u16,
    folder: PathBuf,
    arguments: Vec<String>,
}

/// Returns a port that is free now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("hotset-tiered-{}-{port}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut server = Self {
            process: Self::spawn(port, &folder, &arguments),
            port,
            folder,
            arguments,
        };
        server.answer();
        server
    }

    /// A sentinel that watches this master.
    pub(crate) fn sentinel(master: &str, port: u16) -> Self {
        let own = free_port();
        let folder = std::env::temp_dir().join(format!("hotset-tiered-{}-{own}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let config = folder.join("sentinel.conf");
        let text = format!(
            "port {own}\nbind 127.0.0.1\nsentinel monitor {master} 127.0.0.1 {port} 1\n\
             sentinel down-after-milliseconds {master} 1000\nsentinel failover-timeout {master} 3000\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("redis-server");
        command.arg(&config).arg("--sentinel").stdout(Stdio::null());
        let process = command.spawn().expect("redis-server is installed (`make tools-redis`)");
        let mut server = Self {
            process,
            port: own,
            folder,
            arguments: Vec::new(),
        };
        server.answer();
        server
    }

    fn spawn(port: u16, folder: &Path, arguments: &[String]) -> Child {
        let mut command = Command::new("redis-server");
        let port = port.to_string();
        command.args([
            "--port",
            &port,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.args(arguments).arg("--dir").arg(folder).stdout(Stdio::null());
        command.spawn().expect("redis-server is installed (`make tools-redis`)")
    }

    fn answer(&mut self) {
        let client = redis::Client::open(self.url()).unwrap();
        while client.get_connection_with_timeout(Duration::from_secs(1)).is_err() {
            assert!(self.process.try_wait().unwrap().is_none(), "redis-server ended");
            std::thread::yield_now();
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    pub(crate) fn signal(&self, signal: i32) {
        // SAFETY: the process is a child of this one that was not waited for.
        assert_eq!(unsafe { libc::kill(self.process.id() as i32, signal) }, 0);
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub(crate) fn restart(&mut self) {
        self.process = Self::spawn(self.port, &self.folder, &self.arguments);
        self.answer();
    }

    pub(crate) fn connection(&self) -> redis::Connection {
        redis::Client::open(self.url()).unwrap().get_connection().unwrap()
    }

    /// Executes a command.
    pub(crate) fn run<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        self.try_run(command).unwrap()
    }

    /// Executes a command of a server that may be about to close its connections.
    pub(crate) fn try_run<T: redis::FromRedisValue>(&self, command: &[&str]) -> redis::RedisResult<T> {
        let mut packed = redis::Cmd::new();
        command.iter().for_each(|part| _ = packed.arg(*part));
        packed.query(&mut redis::Client::open(self.url())?.get_connection()?)
    }

    /// Returns whether this is a part of the reply to INFO.
    pub(crate) fn says(&self, section: &str, part: &str) -> bool {
        let info = self.try_run::<String>(&["INFO", section]);
        info.is_ok_and(|info| info.contains(part))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
        _ = std::fs::remove_dir_all(&self.folder);
    }
}

pub(crate) fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        std::thread::sleep(Duration::from_millis(1));
    }
}
