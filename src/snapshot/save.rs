//! Saves a cache batch by batch, while other threads use it.

use super::codec::EntryCodec;
use super::error::SnapshotError;
use super::format::{self, Header};
use super::lazy::{ClockPair, LazySnapshot};
use super::options::{SaveOptions, Saved};
use super::unix_millis;
use super::writer::{EntryMeta, Writer};
use crate::cache::Inner;
use crate::engine::{Engine, Handle};
use crate::policy::Rank;
use crate::reclaim::Guard;
use std::hash::{BuildHasher, Hash};
use std::path::Path;
use std::time::Instant;

/// Entries that are looked up under one guard.
pub(super) const BATCH: usize = 256;

/// Returns a random number that identifies a snapshot.
fn new_id() -> u64 {
    std::hash::RandomState::new().hash_one(unix_millis())
}

/// Returns the header of a file without entries yet.
pub(super) fn header(schema: u64, now: ClockPair, window: u32) -> Header {
    Header {
        id: new_id(),
        schema,
        created: now.wall,
        entries: 0,
        window,
        records: 0,
        index_checksum: 0,
    }
}

/// Returns what a snapshot keeps of an entry besides its key and value.
pub(super) fn meta<K, V>(
    engine: &Engine<K, V>,
    (handle, rank): (Handle, Rank),
    now: ClockPair,
    guard: &Guard,
) -> EntryMeta {
    let times = engine.times_of(handle, guard);
    let times = times.map(|(deadline, max_deadline)| (now.to_wall(deadline), now.to_wall(max_deadline)));
    (engine.weight_of(handle, guard), times, rank)
}

/// Completes the file, calls `report`, and replaces the previous file. After the replacement the
/// save cannot fail.
pub(super) fn complete(
    mut writer: Writer,
    mut index: Vec<[u64; 2]>,
    begun: Instant,
    report: impl FnOnce(),
) -> Result<Saved, SnapshotError> {
    // Of two records of one key the later one is newer: it is sorted first and kept.
    index.sort_unstable_by_key(|[hash, offset]| (*hash, !*offset));
    index.dedup_by_key(|[hash, _]| *hash);
    writer.complete(&index)?;
    report();
    let (bytes, durable) = writer.commit()?;
    Ok(Saved {
        bytes,
        durable,
        entries: index.len() as u64,
        elapsed: begun.elapsed(),
    })
}

impl<K: Hash + Eq, V, S: BuildHasher> Inner<K, V, S> {
    /// Saves the cache; see [`Cache::save`](crate::Cache::save).
    pub(crate) fn save<C: EntryCodec<K, V>>(&self, path: &Path, options: &SaveOptions) -> Result<Saved, SnapshotError> {
        let engine = &self.engine;
        let begun = Instant::now();
        let now = ClockPair::now(engine);
        let unread = self.snapshot_slot.get();
        let (mut list, window) = engine.list();
        let left = unread.as_ref().map_or(Vec::new(), |snapshot| snapshot.places());
        let total = (list.len() + left.len()) as u64;
        let mut writer = Writer::new(path, header(options.schema, now, window))?;
        // The index is built in place: the entries written so far overwrite the beginning of the
        // list.
        let (mut read, mut written, mut weight) = (0, 0, 0u64);
        while read < list.len() {
            let end = list.len().min(read + BATCH);
            let guard = engine.pin();
            let found = engine.find_listed(&list[read..end], &guard);
            for (handle, rank) in found {
                if engine.is_expired(handle.0, now.clock) {
                    continue;
                }
                let entry = Engine::<K, V>::view(handle.0);
                let meta = meta(engine, (handle, rank), now, &guard);
                list[written] = [format::key_hash(&entry.key), writer.offset()];
                writer.add(
                    |out| C::encode_key(&entry.key, out),
                    |out| C::encode_value(&entry.value, out),
                    meta,
                )?;
                (written, weight) = (written + 1, weight.saturating_add(meta.0));
            }
            drop(guard);
            read = end;
            if writer.is_full() {
                writer.flush()?;
                options.report(read as u64, total);
            }
        }
        list.truncate(written);
        if let Some(snapshot) = unread {
            self.save_unread(&snapshot, left, &mut list, weight, (&mut writer, now, options))?;
        }
        complete(writer, list, begun, || options.report(total, total))
    }

    /// Saves the entries that are in the loaded snapshot only, as far as the cache has room for
    /// them.
    fn save_unread(
        &self,
        snapshot: &LazySnapshot<K, V>,
        places: Vec<(u64, usize)>,
        list: &mut Vec<[u64; 2]>,
        mut weight: u64,
        (writer, now, options): (&mut Writer, ClockPair, &SaveOptions),
    ) -> Result<(), SnapshotError> {
        let total = (list.len() + places.len()) as u64;
        // Since the load, deadlines follow the cache's clock, not the wall clock.
        let elapsed = self.engine.time().clock.now().saturating_sub(snapshot.now().clock) / 1_000_000;
        let there = snapshot.now().wall.saturating_add(elapsed);
        let moved = |moment: u64| match moment {
            format::NEVER => format::NEVER,
            moment => now
                .wall
                .saturating_add(moment.saturating_sub(there))
                .min(format::NEVER - 1),
        };
        let capacity = self.engine.thread_states().capacity();
        for (offset, at) in places {
            if weight >= capacity {
                break;
            }
            let Some(record) = snapshot.file().record(offset) else {
                continue;
            };
            let ended = record
                .times
                .is_some_and(|(deadline, max_deadline)| deadline.min(max_deadline) <= there);
            if ended || snapshot.is_claimed(at) {
                continue;
            }
            let times = record
                .times
                .map(|(deadline, max_deadline)| (moved(deadline), moved(max_deadline)));
            list.push([snapshot.file().entry(at).0, writer.offset()]);
            writer.add(
                |out| out.extend_from_slice(record.key),
                |out| out.extend_from_slice(record.value),
                (record.weight, times, record.rank),
            )?;
            weight = weight.saturating_add(record.weight);
            if writer.is_full() {
                writer.flush()?;
                options.report(list.len() as u64, total);
            }
        }
        Ok(())
    }
}
