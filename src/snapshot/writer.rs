//! Writing a snapshot: under a temporary name, in large pieces, and only when it is whole under its own name.

use super::error::SnapshotError;
use super::format::{self, Header, IndexChecksum};
use crate::policy::Rank;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Pieces of about so many bytes are written at once.
const PIECE: usize = 1 << 18;

/// A file under a temporary name, beside the one that it is to replace. It is locked while it is written, which tells it
/// from one whose writer died; those are removed by the next writer. If it is dropped, it is removed.
struct Temporary {
    file: File,
    path: PathBuf,
    kept: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept {
            _ = fs::remove_file(&self.path);
        }
    }
}

impl Temporary {
    fn new(target: &Path) -> Result<Self, SnapshotError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let Some(name) = target.file_name().map(|name| name.to_string_lossy().into_owned()) else {
            return Err(SnapshotError::NotAFile {
                path: target.to_owned(),
            });
        };
        // Renaming would put the file in the place of a device, a pipe, a socket, or a link to what is no file. (For a
        // directory it fails.)
        let is_directory = || fs::symlink_metadata(target).is_ok_and(|itself| itself.is_dir());
        if fs::metadata(target).is_ok_and(|there| !there.is_file()) && !is_directory() {
            return Err(SnapshotError::NotAFile {
                path: target.to_owned(),
            });
        }
        remove_orphans(target, &name);
        loop {
            let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let path = target.with_file_name(format!(".{name}.{process}-{count}.tmp"));
            let mut options = OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            {
                // What is cached is nobody else's business.
                std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            }
            let file = match options.open(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                opened => opened.map_err(SnapshotError::io("create", &path))?,
            };
            // (A file system without locks has orphans.)
            let locked = !matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock));
            // Another writer may have taken it for an orphan before it was locked.
            if locked && is_there(&file, &path) {
                let kept = false;
                return Ok(Self { file, path, kept });
            }
        }
    }
}

#[cfg(unix)]
fn is_there(file: &File, _: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    file.metadata().is_ok_and(|metadata| metadata.nlink() > 0)
}

#[cfg(not(unix))]
fn is_there(_: &File, path: &Path) -> bool {
    path.exists()
}

fn directory(target: &Path) -> &Path {
    target
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Removes what writers of this file left that were killed. That it fails is no reason not to save.
fn remove_orphans(target: &Path, name: &str) {
    let prefix = format!(".{name}.");
    let is_temporary = |found: &str| {
        let middle = found
            .strip_prefix(&prefix)
            .and_then(|rest| rest.strip_suffix(".tmp"))
            .and_then(|middle| middle.split_once('-'));
        middle.is_some_and(|(process, count)| process.parse::<u32>().is_ok() && count.parse::<u64>().is_ok())
    };
    for entry in fs::read_dir(directory(target)).into_iter().flatten().flatten() {
        let regular = entry.file_type().is_ok_and(|kind| kind.is_file());
        if regular && entry.file_name().to_str().is_some_and(is_temporary) {
            let path = entry.path();
            if let Ok(file) = OpenOptions::new().write(true).open(&path)
                && file.try_lock().is_ok()
            {
                _ = fs::remove_file(path);
            }
        }
    }
}

/// What is known of a record besides its key and value: weight, times, rank.
pub(super) type About = (u64, Option<(u64, u64)>, Rank);

/// A snapshot that is being written.
pub(super) struct Writer {
    temporary: Temporary,
    header: Header,
    piece: Vec<u8>,
    /// Where in the file the piece will lie.
    at: u64,
}

impl Writer {
    pub(super) fn new(target: &Path, header: Header) -> Result<Self, SnapshotError> {
        Ok(Self {
            temporary: Temporary::new(target)?,
            header,
            piece: vec![0; format::HEADER],
            at: 0,
        })
    }

    /// Where the next record will lie.
    pub(super) fn offset(&self) -> u64 {
        self.at + self.piece.len() as u64
    }

    /// Whether the piece is large enough to be written.
    pub(super) fn is_full(&self) -> bool {
        self.piece.len() >= PIECE
    }

    /// Adds a record to the piece. `key` and `value` append their bytes.
    pub(super) fn add(
        &mut self,
        key: impl FnOnce(&mut Vec<u8>),
        value: impl FnOnce(&mut Vec<u8>),
        about: About,
    ) -> Result<(), SnapshotError> {
        let offset = self.offset();
        let begin = format::begin_record(&mut self.piece);
        key(&mut self.piece);
        let length = self.piece.len() - begin - format::RECORD;
        value(&mut self.piece);
        format::end_record(&mut self.piece, (begin, length), (self.header.id, offset), about)
    }

    /// Writes the piece.
    pub(super) fn flush(&mut self) -> Result<(), SnapshotError> {
        let Temporary { file, path, .. } = &mut self.temporary;
        file.write_all(&self.piece).map_err(SnapshotError::io("write", path))?;
        self.at += self.piece.len() as u64;
        self.piece.clear();
        self.piece.shrink_to(2 * PIECE);
        Ok(())
    }

    /// Writes the index and the header, and gives the file its name. Returns its length.
    pub(super) fn finish(mut self, target: &Path, index: &[[u64; 2]]) -> Result<u64, SnapshotError> {
        self.flush()?;
        self.header.records = self.at - format::HEADER as u64;
        self.header.entries = index.len() as u64;
        let mut checksum = IndexChecksum::new(self.header.id);
        for part in index.chunks(PIECE / format::ENTRY) {
            format::encode_index(part, &mut self.piece);
            checksum.update(&self.piece);
            self.flush()?;
        }
        self.header.index_checksum = checksum.end();
        let Temporary { file, path, kept } = &mut self.temporary;
        let to_begin = file.seek(SeekFrom::Start(0));
        to_begin.map_err(SnapshotError::io("seek in", path))?;
        let written = file.write_all(&self.header.encode());
        written.map_err(SnapshotError::io("write", path))?;
        file.sync_all().map_err(SnapshotError::io("sync", path))?;
        fs::rename(&*path, target).map_err(SnapshotError::io("replace", target))?;
        *kept = true;
        #[cfg(unix)]
        {
            let directory = directory(target);
            let synced = File::open(directory).and_then(|directory| directory.sync_all());
            synced.map_err(SnapshotError::io("sync", directory))?;
        }
        Ok(self.at)
    }
}
