//! Changes that depend on the current entry: the way from a decision to the engine.

use crate::blob::Blob;
use crate::cache::hotset_cache;
use crate::reply::Answer;
use crate::types::Status;
use engine::{Change, Ttl};

/// Changes an entry as the last reply of `decide` demands. If that is a status, nothing is changed.
pub(crate) fn change(
    cache: &hotset_cache,
    key: &[u8],
    mut decide: impl FnMut(Option<&Blob>) -> Result<Answer, Status>,
) -> Result<(), Status> {
    let mut outcome = Ok(());
    cache.engine().change(key, |current| {
        let answer = decide(current);
        outcome = answer.as_ref().map(|_| ()).map_err(|status| *status);
        match answer {
            Err(_) | Ok(Answer::Keep) => Change::Keep,
            Ok(Answer::Remove) => Change::Remove,
            Ok(Answer::Set(blob, ttl)) => {
                let (key, value) = blob.into_entry();
                Change::Set(key, value, ttl)
            }
        }
    });
    outcome
}

/// Stores the value if `allowed` accepts the current entry. A value that is not stored stays the
/// caller's.
pub(crate) fn store_if(
    cache: &hotset_cache,
    key: &[u8],
    value: &[u8],
    ttl: Ttl,
    mut allowed: impl FnMut(Option<&Blob>) -> Result<(), Status>,
) -> Result<(), Status> {
    let mut made: Option<Blob> = None;
    let done = change(cache, key, |current| {
        allowed(current)?;
        let blob = match &made {
            Some(made) => made,
            None => made.insert(cache.blob(key, value)?),
        };
        blob.arm(true);
        Ok(Answer::Set(blob.clone(), ttl))
    });
    if let (Err(_), Some(made)) = (done, &made) {
        made.arm(false);
    }
    done
}
