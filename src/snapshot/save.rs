//! Saving: the entries one batch after another, while others use the cache.

use super::codec::EntryCodec;
use super::error::SnapshotError;
use super::format::{self, Header};
use super::options::{SaveOptions, Saved};
use super::pending::{Moment, Source};
use super::wall;
use super::writer::Writer;
use crate::cache::Inner;
use crate::engine::Engine;
use crate::map::reclaim::pin;
use crate::prim::sync::Ordering;
use std::hash::{BuildHasher, Hash};
use std::path::Path;

/// Entries looked up at once, under one guard.
const BATCH: usize = 256;

/// A number that no other snapshot has, very likely.
fn new_id() -> u64 {
    std::hash::RandomState::new().hash_one(wall())
}

impl<K: Hash + Eq, V, S: BuildHasher> Inner<K, V, S> {
    /// Saves the cache; see [`Cache::save`](crate::Cache::save).
    pub(crate) fn save<C: EntryCodec<K, V>>(&self, path: &Path, options: &SaveOptions) -> Result<Saved, SnapshotError> {
        let engine = &self.engine;
        let begun = std::time::Instant::now();
        let now = Moment {
            wall: wall(),
            clock: engine.time().clock.now(),
        };
        let pending = self.pending.get();
        let (mut list, window) = engine.list();
        let left = pending.as_ref().map_or(Vec::new(), |source| source.places());
        let total = (list.len() + left.len()) as u64;
        let header = Header {
            id: new_id(),
            schema: options.schema,
            created: now.wall,
            entries: 0,
            window,
            records: 0,
            index_checksum: 0,
        };
        let mut writer = Writer::new(path, header)?;
        // What has been written takes the place of what was listed.
        let (mut read, mut written, mut weight) = (0, 0, 0u64);
        while read < list.len() {
            let end = list.len().min(read + BATCH);
            let guard = pin();
            let found = engine.find_listed(&list[read..end], &guard);
            for (handle, rank) in found {
                if engine.is_over(handle.0, now.clock) {
                    continue;
                }
                let entry = Engine::<K, V>::view(handle.0);
                let own = engine.weight_of(handle, &guard);
                let times = engine.times_of(handle, &guard);
                let times = times.map(|(deadline, limit)| (now.to_wall(deadline), now.to_wall(limit)));
                list[written] = [format::key_hash(&entry.key), writer.offset()];
                writer.add(
                    |out| C::encode_key(&entry.key, out),
                    |out| C::encode_value(&entry.value, out),
                    (own, times, rank),
                )?;
                (written, weight) = (written + 1, weight.saturating_add(own));
            }
            drop(guard);
            read = end;
            if writer.is_full() {
                writer.flush()?;
                options.report(read as u64, total);
            }
        }
        list.truncate(written);
        if let Some(source) = pending {
            self.save_pending(&source, left, &mut list, weight, (&mut writer, now, options))?;
        }
        // Of two records of one key the later one is newer.
        list.sort_unstable_by_key(|[hash, offset]| (*hash, !*offset));
        list.dedup_by_key(|[hash, _]| *hash);
        let bytes = writer.finish(path, &list)?;
        options.report(total, total);
        Ok(Saved {
            entries: list.len() as u64,
            bytes,
            elapsed: begun.elapsed(),
        })
    }

    /// Saves what is still in a snapshot only, as far as there is room for it in the cache.
    fn save_pending(
        &self,
        source: &Source<K, V>,
        places: Vec<(u64, usize)>,
        list: &mut Vec<[u64; 2]>,
        mut weight: u64,
        (writer, now, options): (&mut Writer, Moment, &SaveOptions),
    ) -> Result<(), SnapshotError> {
        let total = (list.len() + places.len()) as u64;
        // Lives are counted on the cache's clock since the snapshot was loaded.
        let elapsed = self.engine.time().clock.now().saturating_sub(source.now().clock) / 1_000_000;
        let there = source.now().wall.saturating_add(elapsed);
        let moved = |moment: u64| match moment {
            format::NEVER => format::NEVER,
            moment => now
                .wall
                .saturating_add(moment.saturating_sub(there))
                .min(format::NEVER - 1),
        };
        let capacity = self.engine.published().capacity.load(Ordering::Relaxed);
        for (offset, at) in places {
            if weight >= capacity {
                break;
            }
            let Some(record) = source.file().record(offset) else {
                continue;
            };
            let ended = record
                .times
                .is_some_and(|(deadline, limit)| deadline.min(limit) <= there);
            if ended || source.is_taken(at) {
                continue;
            }
            let times = record.times.map(|(deadline, limit)| (moved(deadline), moved(limit)));
            list.push([source.file().entry(at).0, writer.offset()]);
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
