//! Tests of the lists against `VecDeque`, and of their memory.

use super::*;
use crate::policy::Entries;
use crate::policy::testing::{Handle, Store, XorShift};
use std::collections::VecDeque;

#[test]
fn list_chunk_is_four_cache_lines() {
    assert_eq!(size_of::<Chunk<std::num::NonZeroU64>>(), 256);
}

#[test]
fn list_behaves_like_deques() {
    let mut rng = XorShift(7);
    for round in 0..30 {
        let mut store = Store::default();
        let mut chunks = Chunks::new();
        let mut queues = [Queue::new(0), Queue::new(1), Queue::new(2)];
        let mut model: [VecDeque<(Handle, u8)>; 3] = Default::default();
        // Rounds differ in how often they push: some grow, some stay near empty.
        let pushes = 3 + round % 5;
        for step in 0..1500 {
            let q = rng.below(3) as usize;
            match rng.below(10) {
                op if op < pushes => {
                    let handle = store.add(rng.next(), u64::from(rng.below(5)));
                    let note = rng.below(16) as u8;
                    assert!(chunks.push_front(&mut queues[q], &store, handle, store.weight(handle), note));
                    model[q].push_front((handle, note));
                }
                8 => {
                    assert_eq!(chunks.back(&queues[q]), model[q].back().copied());
                    if let Some((handle, _)) = model[q].pop_back() {
                        chunks.pop_back(&mut queues[q], &store, store.weight(handle));
                    }
                }
                _ if model[q].is_empty() => {}
                9 => {
                    let at = rng.below(model[q].len() as u32) as usize;
                    let (old, new) = (model[q][at].0, store.add(rng.next(), 3));
                    model[q][at].0 = new;
                    chunks.replace(&mut queues[q], &store, (old, store.weight(old)), (new, 3));
                }
                _ => {
                    let at = rng.below(model[q].len() as u32) as usize;
                    let (handle, _) = model[q].remove(at).unwrap();
                    assert_eq!(chunks.queue_id(store.place(handle)), q as u16);
                    chunks.remove(&mut queues[q], &store, handle, store.weight(handle));
                }
            }
            if step % 16 == 0 {
                chunks.validate(queues.iter(), &store, |handle| store.weight(handle));
                for (queue, model) in queues.iter().zip(&model) {
                    assert_eq!(queue.is_empty(), model.is_empty());
                    assert!(chunks.iter(queue).eq(model.iter().map(|&(handle, _)| handle)));
                }
            }
        }
    }
}

#[test]
fn list_sparse_removal_returns_memory() {
    let mut store = Store::default();
    let mut chunks = Chunks::new();
    let mut queue = Queue::new(0);
    // Each round leaves one in thirty: without merging, every one of them would keep a chunk.
    for _ in 0..20 {
        let batch: Vec<_> = (0..3000).map(|n| store.add(n, 1)).collect();
        batch
            .iter()
            .for_each(|&handle| assert!(chunks.push_front(&mut queue, &store, handle, 1, 0)));
        for (n, &handle) in batch.iter().enumerate() {
            if n % 30 != 0 {
                chunks.remove(&mut queue, &store, handle, 1);
            }
        }
    }
    chunks.validate([&queue].into_iter(), &store, |_| 1);
    assert_eq!(chunks.len(), 2000);
    assert!(chunks.slab.len() < 350, "{}", chunks.slab.len());
}
