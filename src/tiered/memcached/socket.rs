//! A stream socket whose calls end at a deadline.

use super::address::Address;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connected socket. The timeouts that the system has of it are changed only when they differ.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Stream,
    read_timeout: Duration,
    write_timeout: Duration,
}

/// Returns the timeout of one call, which is never zero: whole milliseconds, so that calls with the
/// same time to their deadlines have the same.
fn timeout_until(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let milliseconds = left.as_millis() as u64;
    Ok(if milliseconds > 1 {
        Duration::from_millis(milliseconds)
    } else {
        left.max(Duration::from_micros(1))
    })
}

/// Returns whether the call is repeated: its own timeout is at most the time to the deadline.
fn is_temporary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

impl Socket {
    /// Connects to a server. The system resolves a host's name, which may take longer.
    pub(super) fn connect(address: &Address, deadline: Instant) -> io::Result<Self> {
        let stream = match address {
            Address::Host(host, port) => Stream::Tcp(connect_tcp(host, *port, deadline)?),
            Address::Path(path) => Stream::Unix(connect_unix(path, deadline)?),
        };
        Ok(Self {
            stream,
            read_timeout: Duration::ZERO,
            write_timeout: Duration::ZERO,
        })
    }

    /// Sends all of `bytes`.
    pub(super) fn send(&mut self, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            let timeout = timeout_until(deadline)?;
            if timeout != self.write_timeout {
                match &self.stream {
                    Stream::Tcp(stream) => stream.set_write_timeout(Some(timeout))?,
                    Stream::Unix(stream) => stream.set_write_timeout(Some(timeout))?,
                }
                self.write_timeout = timeout;
            }
            let sent = match &mut self.stream {
                Stream::Tcp(stream) => stream.write(bytes),
                Stream::Unix(stream) => stream.write(bytes),
            };
            match sent {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => bytes = &bytes[count..],
                Err(error) if is_temporary(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Receives at least one byte, and returns how many.
    pub(super) fn receive(&mut self, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
        loop {
            let timeout = timeout_until(deadline)?;
            if timeout != self.read_timeout {
                match &self.stream {
                    Stream::Tcp(stream) => stream.set_read_timeout(Some(timeout))?,
                    Stream::Unix(stream) => stream.set_read_timeout(Some(timeout))?,
                }
                self.read_timeout = timeout;
            }
            let received = match &mut self.stream {
                Stream::Tcp(stream) => stream.read(buffer),
                Stream::Unix(stream) => stream.read(buffer),
            };
            match received {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => return Ok(count),
                Err(error) if is_temporary(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn connect_tcp(host: &str, port: u16, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::ErrorKind::NotFound.into();
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout_until(deadline)?) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Connects to the socket with this path. The standard library's call would wait without a limit
/// where the server's queue of connections is full.
fn connect_unix(path: &Path, deadline: Instant) -> io::Result<UnixStream> {
    // SAFETY: all zero bytes are a value of this type of integers.
    let mut name: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    name.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let bytes = path.as_os_str().as_bytes();
    // The last byte stays zero.
    if bytes.len() >= name.sun_path.len() || bytes.contains(&0) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in name.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    // SAFETY: the arguments are integers.
    let number = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just returned this descriptor, which nothing else has.
    let stream = UnixStream::from(unsafe { OwnedFd::from_raw_fd(number) });
    loop {
        // The timeout of writing is that of connecting, too.
        stream.set_write_timeout(Some(timeout_until(deadline)?))?;
        let length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
        let pointer = (&raw const name).cast::<libc::sockaddr>();
        // SAFETY: the descriptor is open; the address is valid for reads of `length` bytes.
        if unsafe { libc::connect(stream.as_raw_fd(), pointer, length) } == 0 {
            return Ok(stream);
        }
        let error = io::Error::last_os_error();
        if !is_temporary(&error) {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn connecting_to_a_full_queue_ends_at_the_deadline() {
        let folder = std::env::temp_dir().join(format!("hotset-memcached-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("socket");
        let listener = UnixListener::bind(&path).expect("a socket");
        let soon = || Instant::now() + Duration::from_millis(20);
        // SAFETY: the descriptor is open.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
        let mut connected = Vec::new();
        let error = loop {
            match connect_unix(&path, soon()) {
                Ok(stream) => connected.push(stream),
                Err(error) => break error,
            }
        };
        std::fs::remove_dir_all(&folder).expect("removed");
        assert!(is_temporary(&error), "{error:?}");
        assert!(!connected.is_empty());
    }

    #[test]
    fn paths_that_no_socket_can_have_are_refused() {
        let later = || Instant::now() + Duration::from_secs(60);
        for path in ["/".to_owned() + &"x".repeat(200), "/a\0b".to_owned()] {
            let error = connect_unix(Path::new(&path), later()).expect_err("refused");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }
}
