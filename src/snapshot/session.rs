//! Saving and loading in steps, for bindings whose keys and values are encoded by foreign code.
//! That code runs between the steps, without a guard or a lock held.

use super::error::SnapshotError;
use super::file::SnapshotFile;
use super::format;
use super::lazy::ClockPair;
use super::options::Saved;
use super::save::{self, BATCH};
use super::writer::{self, Writer};
use crate::cache::Cache;
use crate::engine::{Engine, Listed};
use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};
use std::path::Path;
use std::time::Instant;

/// What a snapshot keeps of an entry besides its key and value.
#[derive(Debug, Clone, Copy)]
pub struct EntryMeta(writer::EntryMeta);

/// A save in steps. Call [`batch`](Self::batch) and [`add`](Self::add) in turn,
/// [`flush`](Self::flush) when [`is_full`](Self::is_full), and [`finish`](Self::finish) at the end.
/// Dropping it before that saves nothing.
pub struct SaveSession {
    begun: Instant,
    now: ClockPair,
    /// The listed entries. The first `written` ones are overwritten by the index.
    list: Vec<Listed>,
    read: usize,
    written: usize,
    writer: Writer,
}

impl SaveSession {
    /// Lists the entries of the cache, without those that are in a loaded snapshot only.
    ///
    /// # Errors
    /// [`SnapshotError::NotAFile`] and [`SnapshotError::Io`], if no temporary file can be created
    /// beside `path`.
    pub fn begin<K: Hash + Eq, V, S: BuildHasher>(
        cache: &Cache<K, V, S>,
        path: &Path,
        schema: u64,
    ) -> Result<Self, SnapshotError> {
        let now = ClockPair::now(&cache.0.engine);
        let (list, window) = cache.0.engine.list();
        Ok(Self {
            begun: Instant::now(),
            now,
            list,
            read: 0,
            written: 0,
            writer: Writer::new(path, save::header(schema, now, window))?,
        })
    }

    /// Returns the results of `copy` for the next entries, hottest first; empty at the end. `copy`
    /// runs under a guard, which delays the freeing of memory: it must be short.
    pub fn batch<K: Hash + Eq, V, S: BuildHasher, T>(
        &mut self,
        cache: &Cache<K, V, S>,
        mut copy: impl FnMut(&K, &V) -> Option<T>,
    ) -> Vec<(T, EntryMeta)> {
        let engine = &cache.0.engine;
        let mut batch = Vec::new();
        while batch.is_empty() && self.read < self.list.len() {
            let end = self.list.len().min(self.read + BATCH);
            let guard = engine.pin();
            for (handle, rank) in engine.find_listed(&self.list[self.read..end], &guard) {
                let entry = Engine::<K, V>::view(handle.0);
                if !engine.is_expired(handle.0, self.now.clock)
                    && let Some(copied) = copy(&entry.key, &entry.value)
                {
                    let meta = save::meta(engine, (handle, rank), self.now, &guard);
                    batch.push((copied, EntryMeta(meta)));
                }
            }
            drop(guard);
            self.read = end;
        }
        batch
    }

    /// Adds an entry of a batch.
    ///
    /// # Errors
    /// [`SnapshotError::TooLarge`] for a key or a value of 4 GiB.
    ///
    /// # Panics
    /// If more entries are added than the batches had.
    pub fn add(&mut self, key: &[u8], value: &[u8], meta: EntryMeta) -> Result<(), SnapshotError> {
        assert!(self.written < self.read, "more entries than were listed");
        let offset = self.writer.offset();
        self.writer.add(
            |out| out.extend_from_slice(key),
            |out| out.extend_from_slice(value),
            meta.0,
        )?;
        self.list[self.written] = [format::key_hash(key), offset];
        self.written += 1;
        Ok(())
    }

    /// Whether [`flush`](Self::flush) should be called.
    pub fn is_full(&self) -> bool {
        self.writer.is_full()
    }

    /// Writes the added entries to the file.
    ///
    /// # Errors
    /// [`SnapshotError::Io`], if the write fails.
    pub fn flush(&mut self) -> Result<(), SnapshotError> {
        self.writer.flush()
    }

    /// Returns the number of added entries.
    pub fn entries(&self) -> usize {
        self.written
    }

    /// Completes the file, and replaces the previous one.
    ///
    /// # Errors
    /// [`SnapshotError::Io`], if the file cannot be completed, synced or renamed. The previous file
    /// is then unchanged.
    pub fn finish(mut self) -> Result<Saved, SnapshotError> {
        self.list.truncate(self.written);
        save::complete(self.writer, self.list, self.begun, || ())
    }
}

/// A load in steps. Call [`next`](Self::next) while the cache has room, then
/// [`begin_restoring`](Self::begin_restoring), and [`restore`](Self::restore) for each entry, the
/// hottest last.
pub struct LoadSession {
    file: SnapshotFile,
    now: ClockPair,
    /// The offsets of the records, hottest first.
    offsets: Vec<u64>,
    read: usize,
}

impl LoadSession {
    /// Reads a file into memory and checks all of it. Later changes of the file have no effect.
    ///
    /// # Errors
    /// A [`SnapshotError`], if the file cannot be read, is not a snapshot, is too large for this
    /// machine, is corrupt, or has another version or schema.
    pub fn open<K: Hash + Eq, V, S: BuildHasher>(
        cache: &Cache<K, V, S>,
        path: &Path,
        schema: u64,
    ) -> Result<Self, SnapshotError> {
        let file = SnapshotFile::copy(path, schema)?;
        let offsets = file.check_records(|hash, record| match format::key_hash(record.key) == hash {
            true => Ok(()),
            false => Err(SnapshotError::Corrupt { what: "a key's hash" }),
        })?;
        let mut now = ClockPair::now(&cache.0.engine);
        now.wall = now.wall.max(file.header().created);
        Ok(Self {
            file,
            now,
            offsets,
            read: 0,
        })
    }

    /// Returns key, value and the rest of the next unexpired entry, hottest first.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend")]
    pub fn next(&mut self) -> Option<(&[u8], &[u8], EntryMeta)> {
        while let Some(offset) = self.offsets.get(self.read) {
            self.read += 1;
            if let Some(record) = self.file.record(*offset)
                && record
                    .times
                    .is_none_or(|(deadline, max_deadline)| deadline.min(max_deadline) > self.now.wall)
            {
                let meta = EntryMeta((record.weight, record.times, record.rank));
                return Some((record.key, record.value, meta));
            }
        }
        None
    }

    /// Returns the weight that the cache has room for.
    pub fn room<K, V, S>(cache: &Cache<K, V, S>) -> u64 {
        cache.0.engine.room()
    }

    /// Restores the policy's window size. Called once, before the first [`restore`](Self::restore).
    pub fn begin_restoring<K, V, S>(&self, cache: &Cache<K, V, S>) {
        cache.0.engine.set_window(self.file.header().window);
    }

    /// Inserts an entry with the deadlines and the rank that it had. Returns whether it was
    /// inserted: not if it has expired, or if its key is present. `sought` is hashed and compared
    /// for the key.
    pub fn restore<K, V, S, Q>(&self, cache: &Cache<K, V, S>, sought: &Q, entry: (K, V), meta: EntryMeta) -> bool
    where
        K: Hash + Eq + Borrow<Q>,
        S: BuildHasher,
        Q: Hash + Eq + ?Sized,
    {
        let (_, times, rank) = meta.0;
        let (inner, engine) = (&*cache.0, &cache.0.engine);
        let (hash, weight) = (inner.hash(sought), inner.weigh(&entry.0, &entry.1));
        let times =
            times.map(|(deadline, max_deadline)| (self.now.to_clock(deadline), self.now.to_clock(max_deadline)));
        let time = engine.time();
        let timed = times.is_some() || time.is_active();
        let now = if timed { time.clock.now() } else { 0 };
        if times.is_some_and(|(deadline, max_deadline)| deadline.min(max_deadline) <= now) {
            return false;
        }
        let life = time.for_restore(times, (hash, (&entry.0, &entry.1)), now);
        let guard = engine.pin_fenced();
        let new = engine.make(hash, entry, weight, life, &guard);
        engine.restore((hash, new), rank, |there, _| there.borrow() == sought, || false, &guard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::LoadOptions;
    use crate::{ManualClock, Ttl, raw};
    use std::convert::Infallible;
    use std::fs;
    use std::path::PathBuf;
    use std::time::Duration;

    type Strings = Cache<String, String>;

    fn file(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("hotset-steps-{name}-{}", std::process::id()))
    }

    fn pair(key: &str, value: &str) -> Option<(String, String)> {
        (key != "no").then(|| (key.to_owned(), value.to_owned()))
    }

    fn save(cache: &Strings, path: &Path) -> u64 {
        let mut saving = SaveSession::begin(cache, path, 7).unwrap();
        loop {
            let batch = saving.batch(cache, |key, value| pair(key, value));
            if batch.is_empty() {
                return saving.finish().unwrap().entries;
            }
            for ((key, value), meta) in batch {
                saving.add(key.as_bytes(), value.as_bytes(), meta).unwrap();
                if saving.is_full() {
                    saving.flush().unwrap();
                }
            }
        }
    }

    fn load(cache: &Strings, path: &Path) -> (usize, Vec<String>) {
        let mut loading = LoadSession::open(cache, path, 7).unwrap();
        let (mut all, mut room) = (Vec::new(), LoadSession::room(cache));
        while room > 0
            && let Some((key, value, meta)) = loading.next()
        {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            all.push((text(key), text(value), meta));
            room -= 1;
        }
        loading.begin_restoring(cache);
        let keys = all.iter().map(|(key, ..)| key.clone()).collect();
        let restore =
            |(key, value, meta): (String, String, EntryMeta)| loading.restore(cache, &*key.clone(), (key, value), meta);
        (
            all.into_iter().rev().filter(|entry| restore(entry.clone())).count(),
            keys,
        )
    }

    #[test]
    fn restored_entries_keep_their_order() {
        let path = file("rank");
        let cache = Strings::new(1000);
        for i in 0..1500u32 {
            cache.insert(i.to_string(), format!("value {i}"));
            cache.get(&*(i % 97).to_string());
        }
        cache.insert("no".to_owned(), String::new());
        cache.run_pending();
        let hottest = |cache: &Strings| {
            let reader = cache.reader();
            let keys = reader.hottest().map(|(key, _)| key.clone()).filter(|key| key != "no");
            keys.collect::<Vec<_>>()
        };
        let before = hottest(&cache);
        assert_eq!(save(&cache, &path), before.len() as u64);

        let cache = Strings::new(1000);
        let (count, keys) = load(&cache, &path);
        assert_eq!((count, &keys), (before.len(), &before));
        assert_eq!(hottest(&cache), before);
        assert_eq!(cache.get("3").as_deref(), Some("value 3"));
        // The file has the format of a cache of byte strings.
        let bytes: Cache<Vec<u8>, Vec<u8>> = Cache::new(1000);
        bytes.load_with(&path, &LoadOptions::new().schema(7)).unwrap();
        assert_eq!(bytes.get(&b"3"[..]).as_deref(), Some(&b"value 3"[..]));
        // Into a smaller cache that holds an entry already.
        let cache = Strings::new(100);
        cache.insert(before[1].clone(), "newer".to_owned());
        let (count, keys) = load(&cache, &path);
        assert_eq!((count, &keys[..]), (98, &before[..99]));
        assert_eq!(cache.get(&before[1]).as_deref(), Some("newer"));
        assert_eq!(cache.len(), 99);
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn restored_entry_keeps_its_remaining_ttl() {
        let path = file("lives");
        let new = |clock: &std::sync::Arc<ManualClock>| {
            Strings::builder()
                .max_entries(10)
                .time_to_live(Duration::from_secs(100))
                .refresh_after(Duration::from_secs(60))
                .clock(clock.clone())
                .build()
                .unwrap()
        };
        let clock = std::sync::Arc::new(ManualClock::new());
        let cache = new(&clock);
        cache.insert("usual".to_owned(), "1".to_owned());
        cache.insert_with_ttl("short".to_owned(), "2".to_owned(), Duration::from_secs(20));
        let entry = || Ok::<_, Infallible>(("long".to_owned(), "3".to_owned()));
        let Ok(()) = raw::insert(&cache, "long", Ttl::Never, entry);
        clock.advance(Duration::from_secs(30));
        assert_eq!(save(&cache, &path), 2);

        let clock = std::sync::Arc::new(ManualClock::new());
        let cache = new(&clock);
        clock.advance(Duration::from_secs(5));
        assert_eq!(load(&cache, &path).0, 2);
        // Some milliseconds of the wall clock have passed.
        let left = cache.remaining("usual").unwrap().unwrap();
        assert!((40..=70).contains(&left.as_secs()), "{left:?}");
        assert_eq!(cache.remaining("long"), Some(None));
        let due = |key: &str| raw::get_due(&cache, key, |_, due| due);
        assert_eq!((due("usual"), due("long")), (Some(false), Some(false)));
        clock.advance(Duration::from_secs(31)); // older than a minute, since it was made
        assert_eq!((due("usual"), due("long")), (Some(true), Some(false)));
        clock.advance(Duration::from_secs(40));
        assert_eq!((due("usual"), due("long")), (None, Some(true)));
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_found() {
        let path = file("corrupt");
        let cache = Strings::new(10);
        for i in 0..5 {
            cache.insert(i.to_string(), "value".to_owned());
        }
        save(&cache, &path);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (at % 8);
            fs::write(&path, damaged).unwrap();
            assert!(LoadSession::open(&cache, &path, 7).is_err(), "{at}");
            fs::write(&path, &whole[..at]).unwrap();
            assert!(LoadSession::open(&cache, &path, 7).is_err(), "{at}");
        }
        fs::write(&path, &whole).unwrap();
        assert!(LoadSession::open(&cache, &path, 7).is_ok());
        assert!(matches!(
            LoadSession::open(&cache, &path, 8),
            Err(SnapshotError::Schema { found: 7, expected: 8 })
        ));
        // A dropped session leaves the file unchanged.
        let mut saving = SaveSession::begin(&cache, &path, 8).unwrap();
        assert!(!saving.batch(&cache, |key, value| pair(key, value)).is_empty());
        drop(saving);
        assert_eq!(fs::read(&path).unwrap(), whole);
        fs::remove_file(path).unwrap();
    }
}
