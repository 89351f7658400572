//! The file of a process: its creation, its two slots, the request of a reader.

use super::error::StatsFileError;
use super::format::{self, Header, Language, REQUEST_SIZE, Request, SlotHeader};
use super::system;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The most files of one process: one for each copy of this library in it.
const FILES: u32 = 16;

/// The stats file of this process.
pub(super) struct Writer {
    file: File,
    path: PathBuf,
    /// The sequence of the last slot that was written.
    sequence: u64,
}

/// Returns the Unix time in nanoseconds.
pub(super) fn unix_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Checks that only this user, and root, can replace files in a directory.
fn check_directory(directory: &Path) -> Result<(), StatsFileError> {
    let found = fs::metadata(directory).map_err(|source| StatsFileError::io(directory, source))?;
    if !found.is_dir() {
        return Err(StatsFileError::io(
            directory,
            io::Error::from_raw_os_error(libc::ENOTDIR),
        ));
    }
    const STICKY: u32 = 0o1000;
    let shared = found.mode() & 0o022 != 0 && found.mode() & STICKY == 0;
    let trusted = found.uid() == system::user() || found.uid() == 0;
    if shared || !trusted && found.mode() & STICKY == 0 {
        return Err(StatsFileError::unsafe_directory(directory));
    }
    Ok(())
}

impl Writer {
    /// Creates the file of this process in `directory`, without records.
    pub(super) fn create(directory: &Path, language: Language, program: &str) -> Result<Self, StatsFileError> {
        check_directory(directory)?;
        if !system::may_write_to(format::FILE as u64) {
            return Err(StatsFileError::io(directory, io::Error::from_raw_os_error(libc::EFBIG)));
        }
        let pid = std::process::id();
        let failed = |source| StatsFileError::io(directory, source);
        // The file gets its name once it is complete, so that no reader sees a part of it, nor
        // another copy of this library takes it for a dead one.
        let (draft, file) = Self::draft(directory, pid).map_err(failed)?;
        let header = Header {
            language,
            pid,
            start: system::start_time(pid),
            created: unix_nanos(),
            namespace: system::namespace(),
            descriptor: file.as_raw_fd().unsigned_abs(),
            parent: std::os::unix::process::parent_id(),
            uid: system::user(),
            program: program.to_owned(),
        };
        let mut bytes = header.encode();
        bytes.resize(format::HEADER + format::SLOT_HEADER, 0);
        let named = file
            .write_all_at(&bytes, 0)
            .and_then(|()| Self::publish(directory, &draft, &header));
        _ = fs::remove_file(&draft);
        let path = named.map_err(failed)?;
        Ok(Self {
            file,
            path,
            sequence: 0,
        })
    }

    /// Creates a file without a name that readers look for.
    fn draft(directory: &Path, pid: u32) -> io::Result<(PathBuf, File)> {
        let mut error = io::ErrorKind::AlreadyExists.into();
        for _ in 0..FILES {
            let draft = directory.join(format!(".hotset-{pid}-{}.tmp", unix_nanos()));
            // O_EXCL, so that neither a link nor another user's file is opened.
            match OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&draft)
            {
                Ok(file) => return Ok((draft, file)),
                Err(failed) if failed.kind() == io::ErrorKind::AlreadyExists => error = failed,
                Err(failed) => return Err(failed),
            }
        }
        Err(error)
    }

    /// Gives the draft a name that no living file has.
    fn publish(directory: &Path, draft: &Path, header: &Header) -> io::Result<PathBuf> {
        let mut number = 0;
        let mut removed = false;
        while number < FILES {
            let path = directory.join(format!("hotset-{}-{number}.stats", header.pid));
            // A link fails if the name exists; a rename would replace another copy's file.
            match fs::hard_link(draft, &path) {
                Ok(()) => return Ok(path),
                Err(failed) if failed.kind() == io::ErrorKind::AlreadyExists => {}
                // A file system without links.
                Err(_) if fs::symlink_metadata(&path).is_err() => {
                    return fs::rename(draft, &path).map(|()| path);
                }
                Err(failed) => return Err(failed),
            }
            // The pid is this process's, so the file is that of another copy of the library in this
            // process, or of a dead process, or another user's.
            let dead = !removed && !is_of_this_process(&path, header);
            removed = dead && fs::remove_file(&path).is_ok();
            number += u32::from(!removed);
        }
        Err(io::Error::from_raw_os_error(libc::EEXIST))
    }

    /// Writes the records into the slot that is not the newest. `slot` has room for the header.
    ///
    /// After a failure that slot is not whole, and the newest remains the newest.
    pub(super) fn write(&mut self, slot: &mut [u8], mut header: SlotHeader) -> io::Result<()> {
        header.sequence = self.sequence + 1;
        let offset = format::slot_offset(header.sequence);
        if !system::may_write_to(offset + slot.len() as u64) {
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        format::seal_slot(slot, &header);
        self.file.write_all_at(slot, offset)?;
        self.sequence = header.sequence;
        Ok(())
    }

    /// Returns the request that a reader wrote last, if there is any.
    pub(super) fn request(&self) -> Option<Request> {
        let mut bytes = [0; REQUEST_SIZE];
        self.file.read_exact_at(&mut bytes, format::REQUEST as u64).ok()?;
        Request::decode(&bytes)
    }

    /// Whether the file still has its name: a reader, or a person, may have removed it.
    pub(super) fn is_linked(&self) -> bool {
        self.file.metadata().is_ok_and(|file| file.nlink() != 0)
    }

    /// Removes the file, unless its name is another file's by now.
    pub(super) fn remove(&self) {
        let same = |named: Metadata, own: Metadata| named.ino() == own.ino() && named.dev() == own.dev();
        if let (Ok(named), Ok(own)) = (fs::symlink_metadata(&self.path), self.file.metadata())
            && same(named, own)
        {
            _ = fs::remove_file(&self.path);
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether a file is that of another copy of this library in this process.
fn is_of_this_process(path: &Path, own: &Header) -> bool {
    let read = || {
        let file = system::open(path, false).ok()?;
        let found = file.metadata().ok()?;
        let mut bytes = [0; format::HEADER];
        file.read_exact_at(&mut bytes, 0).ok()?;
        let (header, _) = format::decode_header(&bytes).ok()?;
        let same = header.pid == own.pid && header.start == own.start && found.uid() == own.uid;
        // Where descriptors cannot be seen, the file may be that of the program that this one was
        // executed by. Then it stays.
        Some(same && system::has_open(own.pid, header.descriptor, &found).unwrap_or(true))
    };
    read().unwrap_or(false)
}
