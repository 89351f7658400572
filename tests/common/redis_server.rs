//! A redis-server for tests and benchmarks.
// Not each of them uses all of it.
#![allow(dead_code)]

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A redis-server on a free port of the loopback interface, with a folder of its own.
pub(crate) struct Server {
    process: Child,
    port: u16,
    folder: PathBuf,
}

impl Server {
    pub(crate) fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = std::env::temp_dir().join(format!("hotset-tiered-{}-{port}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let mut server = Self {
            process: Self::spawn(port, &folder),
            port,
            folder,
        };
        server.answer();
        server
    }

    fn spawn(port: u16, folder: &PathBuf) -> Child {
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.arg("--dir").arg(folder).stdout(Stdio::null());
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
        self.process = Self::spawn(self.port, &self.folder);
        self.answer();
    }

    pub(crate) fn connection(&self) -> redis::Connection {
        redis::Client::open(self.url()).unwrap().get_connection().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
        _ = std::fs::remove_dir_all(&self.folder);
    }
}
