//! A connection on which no wait is longer than its deadline, whatever the server sends.
//!
//! redis-rs's own connection bounds the wait for each piece of a reply, so that a server that sends
//! a byte now and then extends a call without limit. It is used for TLS, and for sockets with
//! settings that the standard library has not; otherwise a socket of this module's, and redis-rs's
//! parser.

use super::reply::{failure_of, failure_of_connecting};
use crate::tiered::transport::Failure;
use redis::{
    Client, Cmd, ConnectionAddr, ConnectionInfo, ConnectionLike as _, Parser, RedisConnectionInfo, RedisError, Value,
};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How much longer than the time left a wait of the operating system's may be.
const SLACK: Duration = Duration::from_millis(1);

/// A connection to a server, after its HELLO or AUTH, and SELECT.
pub(super) struct Wire {
    kind: Kind,
    is_open: bool,
}

enum Kind {
    Own { socket: Socket, parser: Parser },
    OfClient(redis::Connection),
}

/// A socket, and the longest waits that it is set to.
struct Socket {
    stream: Stream,
    read_wait: Duration,
    write_wait: Duration,
}

enum Stream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

/// Returns the time that is left; the shortest that there is if none is.
pub(super) fn left(deadline: Instant) -> Duration {
    deadline
        .saturating_duration_since(Instant::now())
        .max(Duration::from_millis(1))
}

pub(super) fn command(parts: &[&[u8]]) -> Cmd {
    let mut command = Cmd::new();
    for part in parts {
        command.arg(*part);
    }
    command
}

/// Sends commands in one packet, and returns their replies. The connection is of no further use
/// after [`Failure::Timeout`].
pub(super) fn exchange(wire: &mut Wire, commands: &[Cmd], deadline: Instant) -> Result<Vec<Value>, Failure> {
    if !wire.is_open() {
        return Err(Failure::Refused);
    }
    let mut packed = Vec::new();
    commands
        .iter()
        .for_each(|command| command.write_packed_command(&mut packed));
    wire.send(&packed, deadline).map_err(|_| Failure::Timeout)?;
    let mut replies = Vec::with_capacity(commands.len());
    while replies.len() < commands.len() {
        match wire.receive(deadline).map_err(|_| Failure::Timeout)? {
            Value::Push { .. } => {}
            reply => replies.push(reply),
        }
    }
    Ok(replies)
}

fn timed_out() -> io::Error {
    io::ErrorKind::TimedOut.into()
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

impl Socket {
    fn connect(info: &ConnectionInfo, deadline: Instant) -> io::Result<Self> {
        let stream = match info.addr() {
            ConnectionAddr::Tcp(host, port) => {
                let mut outcome = Err(io::ErrorKind::AddrNotAvailable.into());
                for address in (host.as_str(), *port).to_socket_addrs()? {
                    outcome = TcpStream::connect_timeout(&address, left(deadline));
                    if outcome.is_ok() {
                        break;
                    }
                }
                let stream = outcome?;
                // A command in two packets would wait for the acknowledgment of the first.
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            #[cfg(unix)]
            ConnectionAddr::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        Ok(Self {
            stream,
            read_wait: Duration::ZERO,
            write_wait: Duration::ZERO,
        })
    }
}

/// A socket that is used until a deadline.
struct Timed<'a> {
    socket: &'a mut Socket,
    deadline: Instant,
}

impl Timed<'_> {
    /// Repeats a call that waits at most for the time that the socket is set to.
    ///
    /// The setting stays as it is while it is no longer than the time left, and not much shorter:
    /// so most calls need no system call for it. A wait that ended early is repeated.
    fn repeat<T>(
        &mut self,
        wait: fn(&mut Socket) -> &mut Duration,
        set: fn(&Stream, Duration) -> io::Result<()>,
        mut call: impl FnMut(&mut Stream) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(timed_out());
            }
            let current = *wait(self.socket);
            if current > left + SLACK || current < left / 2 {
                set(&self.socket.stream, left)?;
                *wait(self.socket) = left;
            }
            match call(&mut self.socket.stream) {
                Err(error) if is_timeout(&error) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return outcome,
            }
        }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let set = |stream: &Stream, wait| match stream {
            Stream::Tcp(stream) => stream.set_read_timeout(Some(wait)),
            #[cfg(unix)]
            Stream::Unix(stream) => stream.set_read_timeout(Some(wait)),
        };
        self.repeat(
            |socket| &mut socket.read_wait,
            set,
            |stream| match stream {
                Stream::Tcp(stream) => stream.read(buffer),
                #[cfg(unix)]
                Stream::Unix(stream) => stream.read(buffer),
            },
        )
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let set = |stream: &Stream, wait| match stream {
            Stream::Tcp(stream) => stream.set_write_timeout(Some(wait)),
            #[cfg(unix)]
            Stream::Unix(stream) => stream.set_write_timeout(Some(wait)),
        };
        self.repeat(
            |socket| &mut socket.write_wait,
            set,
            |stream| match stream {
                Stream::Tcp(stream) => stream.write(bytes),
                #[cfg(unix)]
                Stream::Unix(stream) => stream.write(bytes),
            },
        )
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns whether the standard library can connect so.
fn is_plain(info: &ConnectionInfo) -> bool {
    let settings = info.tcp_settings();
    // The only way to find out whether a linger time is set.
    let has_linger = format!("{settings:?}").contains("linger_time: Some");
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    let has_user_timeout = settings.user_timeout().is_some();
    #[cfg(not(any(target_os = "android", target_os = "fuchsia", target_os = "linux")))]
    let has_user_timeout = false;
    match info.addr() {
        ConnectionAddr::Tcp(..) => !has_linger && !has_user_timeout && settings.keepalive().is_none(),
        ConnectionAddr::Unix(_) => cfg!(unix),
        _ => false,
    }
}

impl Wire {
    /// Connects as `client` would.
    pub(super) fn open(client: &Client, deadline: Instant) -> Result<Self, Failure> {
        let info = client.get_connection_info();
        if !is_plain(info) {
            let connection = client.get_connection_with_timeout(left(deadline));
            let connection = connection.map_err(|error| failure_of_connecting(&error))?;
            return Ok(Self {
                kind: Kind::OfClient(connection),
                is_open: true,
            });
        }
        let mut wire = Self {
            kind: Kind::Own {
                socket: Socket::connect(info, deadline).map_err(|_| Failure::Refused)?,
                parser: Parser::new(),
            },
            is_open: true,
        };
        wire.introduce(info.redis_settings(), deadline)?;
        Ok(wire)
    }

    /// Logs in, and chooses protocol and database, as redis-rs does.
    fn introduce(&mut self, settings: &RedisConnectionInfo, deadline: Instant) -> Result<(), Failure> {
        let database = settings.db().to_string();
        let user = settings.username().unwrap_or("default").as_bytes();
        let mut commands = Vec::new();
        match (settings.protocol().supports_resp3(), settings.password()) {
            (true, Some(password)) => {
                commands.push(command(&[b"HELLO", b"3", b"AUTH", user, password.as_bytes()]));
            }
            (true, None) => commands.push(command(&[b"HELLO", b"3"])),
            (false, Some(password)) if settings.username().is_some() => {
                commands.push(command(&[b"AUTH", user, password.as_bytes()]));
            }
            (false, Some(password)) => commands.push(command(&[b"AUTH", password.as_bytes()])),
            (false, None) => {}
        }
        let logs_in = settings.password().is_some();
        if settings.db() != 0 {
            commands.push(command(&[b"SELECT", database.as_bytes()]));
        }
        let needed = commands.len();
        if !settings.skip_set_lib_name() {
            let name = settings.lib_name().unwrap_or("hotset");
            let version = settings.lib_ver().unwrap_or(env!("CARGO_PKG_VERSION"));
            for (what, text) in [(&b"LIB-NAME"[..], name), (b"LIB-VER", version)] {
                commands.push(command(&[b"CLIENT", b"SETINFO", what, text.as_bytes()]));
            }
        }
        if commands.is_empty() {
            return Ok(());
        }
        let replies = exchange(self, &commands, deadline).map_err(|_| Failure::Refused)?;
        // Servers may not know the commands behind the needed ones.
        for (nth, reply) in replies.iter().take(needed).enumerate() {
            if let Value::ServerError(error) = reply {
                return Err(match failure_of(error) {
                    Failure::Other if nth == 0 && logs_in => Failure::NoPermission,
                    failure => failure,
                });
            }
        }
        Ok(())
    }

    pub(super) fn is_open(&self) -> bool {
        match &self.kind {
            Kind::Own { .. } => self.is_open,
            Kind::OfClient(connection) => connection.is_open(),
        }
    }

    /// Sends bytes. After an error, a part of them may have been sent.
    pub(super) fn send(&mut self, bytes: &[u8], deadline: Instant) -> Result<(), RedisError> {
        match &mut self.kind {
            Kind::Own { socket, .. } => {
                let sent = Timed { socket, deadline }.write_all(bytes);
                self.is_open &= sent.is_ok();
                Ok(sent?)
            }
            Kind::OfClient(connection) => {
                connection.set_write_timeout(Some(left(deadline)))?;
                connection.send_packed_command(bytes)
            }
        }
    }

    /// Returns the next reply or push. After a timeout, what has arrived of it is kept, and the
    /// next call continues with it; after other errors, the connection is closed.
    pub(super) fn receive(&mut self, deadline: Instant) -> Result<Value, RedisError> {
        match &mut self.kind {
            Kind::Own { socket, parser } => {
                let received = parser.parse_value(Timed { socket, deadline });
                self.is_open &= received.as_ref().err().is_none_or(RedisError::is_timeout);
                received
            }
            Kind::OfClient(connection) => {
                connection.set_read_timeout(Some(left(deadline)))?;
                connection.recv_response()
            }
        }
    }

    /// Returns whether a timeout has [`receive`](Self::receive) skip the reply that comes late.
    pub(super) fn skips_late_replies(&self) -> bool {
        matches!(self.kind, Kind::OfClient(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Shutdown, TcpListener};
    use std::thread::{self, JoinHandle};

    /// Starts a server for one connection.
    fn server(serve: impl FnOnce(&mut TcpStream) + Send + 'static) -> (Client, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("redis://:password@{}", listener.local_addr().unwrap());
        let serving = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            serve(&mut stream);
            // To close with unread bytes would reset the connection: what was sent might be lost.
            _ = stream.shutdown(Shutdown::Write);
            _ = io::copy(&mut stream, &mut io::sink());
        });
        (Client::open(url).unwrap(), serving)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(100)
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    /// Answers what [`Wire::introduce`] sends.
    fn welcome(stream: &mut TcpStream) {
        stream.write_all(b"+OK\r\n+OK\r\n-ERR unknown subcommand\r\n").unwrap();
    }

    /// Sends a byte now and then, for longer than any call may take, until the client is gone.
    fn drip(stream: &mut TcpStream) {
        while stream.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn a_server_that_drips_bytes_does_not_extend_a_call() {
        let (client, serving) = server(|stream| {
            welcome(stream);
            stream.write_all(b"$1000000000\r\n").unwrap();
            drip(stream);
        });
        let mut wire = Wire::open(&client, later()).unwrap();
        assert_eq!(
            exchange(&mut wire, &[command(&[b"GET", b"tea"])], soon()),
            Err(Failure::Timeout)
        );
        drop(wire);
        serving.join().unwrap();
    }

    #[test]
    fn a_server_that_drips_pushes_does_not_extend_a_call() {
        let (client, serving) = server(|stream| {
            welcome(stream);
            while stream.write_all(b">2\r\n$10\r\ninvalidate\r\n_\r\n").is_ok() {}
        });
        let mut wire = Wire::open(&client, later()).unwrap();
        assert_eq!(
            exchange(&mut wire, &[command(&[b"GET", b"tea"])], soon()),
            Err(Failure::Timeout)
        );
        drop(wire);
        serving.join().unwrap();
    }

    #[test]
    fn a_server_that_drips_bytes_does_not_extend_connecting() {
        let (client, serving) = server(|stream| {
            stream.write_all(b"+").unwrap();
            drip(stream);
        });
        assert_eq!(Wire::open(&client, soon()).err(), Some(Failure::Refused));
        serving.join().unwrap();
    }

    #[test]
    fn a_server_that_reads_nothing_does_not_extend_a_call() {
        let (finish, finished) = std::sync::mpsc::channel();
        let (client, serving) = server(move |stream| {
            welcome(stream);
            // Its bytes are more than the buffers hold.
            finished.recv().unwrap();
        });
        let mut wire = Wire::open(&client, later()).unwrap();
        let value = vec![b'x'; 64 << 20];
        assert_eq!(
            exchange(&mut wire, &[command(&[b"SET", b"tea", &value])], soon()),
            Err(Failure::Timeout)
        );
        assert!(!wire.is_open());
        finish.send(()).unwrap();
        drop(wire);
        serving.join().unwrap();
    }

    #[test]
    fn a_reply_in_pieces_is_read_over_several_waits() {
        let (client, serving) = server(|stream| {
            welcome(stream);
            for byte in b">2\r\n$10\r\ninvalidate\r\n*1\r\n$3\r\ntea\r\n+PONG\r\n" {
                stream.write_all(&[*byte]).unwrap();
                thread::sleep(Duration::from_millis(1));
            }
        });
        let mut wire = Wire::open(&client, later()).unwrap();
        let mut receive = || {
            loop {
                match wire.receive(Instant::now() + Duration::from_millis(3)) {
                    Err(error) => assert!(error.is_timeout(), "{error}"),
                    Ok(value) => return value,
                }
            }
        };
        let keys = Value::Array(vec![Value::BulkString(b"tea".into())]);
        assert_eq!(
            receive(),
            Value::Push {
                kind: redis::PushKind::Invalidate,
                data: vec![keys]
            }
        );
        assert_eq!(receive(), Value::SimpleString("PONG".into()));
        assert!(wire.receive(later()).is_err());
        assert!(!wire.is_open());
        drop(wire);
        serving.join().unwrap();
    }

    #[test]
    fn a_wrong_password_is_no_permission() {
        let (client, serving) = server(|stream| {
            stream.write_all(b"-WRONGPASS invalid\r\n+OK\r\n+OK\r\n").unwrap();
        });
        assert_eq!(Wire::open(&client, later()).err(), Some(Failure::NoPermission));
        serving.join().unwrap();
    }
}
