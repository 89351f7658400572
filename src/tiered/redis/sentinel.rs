//! Sentinels, which know the current master.

use super::wire::{Wire, command, exchange};
use crate::tiered::transport::Failure;
use redis::{Client, ConnectionAddr, ConnectionInfo, Value};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

pub(super) struct Sentinels {
    sentinels: Vec<Client>,
    /// The sentinel that answered last.
    last: AtomicUsize,
    /// The master's name.
    pub(super) master: String,
    /// Connections to it have these settings, but for the address.
    like: ConnectionInfo,
}

impl Sentinels {
    pub(super) fn new(sentinels: Vec<Client>, master: String, like: ConnectionInfo) -> Self {
        Self {
            sentinels,
            last: AtomicUsize::new(0),
            master,
            like,
        }
    }

    /// Returns how to connect to the current master: asks the sentinels, the one that answered last
    /// first, until one knows it. Each has an equal share of the time left to those behind it.
    pub(super) fn info(&self, deadline: Instant) -> Result<ConnectionInfo, Failure> {
        let mut failure = Failure::Refused;
        let count = self.sentinels.len();
        // Relaxed: any sentinel may be the first.
        let last = self.last.load(Ordering::Relaxed);
        for nth in 0..count {
            let number = (last + nth) % count;
            let now = Instant::now();
            let share = deadline.saturating_duration_since(now) / (count - nth) as u32;
            match self.ask(&self.sentinels[number], now + share) {
                Ok((host, port)) => {
                    self.last.store(number, Ordering::Relaxed);
                    let address = match self.like.addr() {
                        ConnectionAddr::TcpTls {
                            insecure, tls_params, ..
                        } => ConnectionAddr::TcpTls {
                            host,
                            port,
                            insecure: *insecure,
                            tls_params: tls_params.clone(),
                        },
                        _ => ConnectionAddr::Tcp(host, port),
                    };
                    return Ok(self.like.clone().set_addr(address));
                }
                Err(other) => failure = other,
            }
        }
        Err(failure)
    }

    fn ask(&self, sentinel: &Client, deadline: Instant) -> Result<(String, u16), Failure> {
        let mut wire = Wire::open(sentinel, deadline)?;
        let question = command(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self.master.as_bytes()]);
        let replies = exchange(&mut wire, &[question], deadline);
        let Some(Value::Array(parts)) = replies.map_err(|_| Failure::Refused)?.pop() else {
            return Err(Failure::Refused);
        };
        let [Value::BulkString(host), Value::BulkString(port)] = &parts[..] else {
            return Err(Failure::Refused);
        };
        let host = String::from_utf8(host.clone()).map_err(|_| Failure::Refused)?;
        let port = std::str::from_utf8(port).ok().and_then(|port| port.parse().ok());
        Ok((host, port.ok_or(Failure::Refused)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;
    use std::time::Duration;

    #[test]
    fn a_sentinel_that_does_not_answer_leaves_time_for_the_next() {
        let [silent, answering] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let client = |listener: &TcpListener| {
            let address = listener.local_addr().unwrap();
            Client::open(format!("redis://{address}")).unwrap()
        };
        let sentinels = vec![client(&silent), client(&answering)];
        let like = sentinels[0].get_connection_info().clone();
        let sentinels = Sentinels::new(sentinels, "shop".into(), like);
        let serving = std::thread::spawn(move || {
            for _ in 0..2 {
                let mut stream = answering.accept().unwrap().0;
                stream
                    .write_all(b"+OK\r\n+OK\r\n*2\r\n$7\r\n1.2.3.4\r\n$2\r\n12\r\n")
                    .unwrap();
                // To close with unread bytes would reset the connection.
                _ = std::io::copy(&mut stream, &mut std::io::sink());
            }
        });
        for _ in 0..2 {
            let info = sentinels.info(Instant::now() + Duration::from_secs(2)).unwrap();
            assert_eq!(*info.addr(), ConnectionAddr::Tcp("1.2.3.4".into(), 12));
            assert_eq!(sentinels.last.load(Ordering::Relaxed), 1);
        }
        serving.join().unwrap();
    }
}
