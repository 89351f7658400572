//! Keys by value or by reference, for calls that need an owned key only in some cases.

use std::borrow::Borrow;
use std::hash::Hash;

/// A key by value (`K`), or by reference to a borrowed form of it (`&Q`, where `Q: ToOwned<Owned = K>`).
///
/// Loads and [`compute`](crate::Cache::compute) take either. With a reference, an owned key is created
/// only if the call inserts: a hit of a `String` key that is passed as `&str` does not allocate.
///
/// `Form` tells the two implementations apart and is inferred. Inference needs the type of the cache's
/// keys: where no earlier call has determined it, write it down, as in `Cache::<String, u64>::new(100)`.
/// This trait cannot be implemented by other types.
///
/// # Examples
///
/// ```
/// let cache = hotset::Cache::<String, usize>::new(100);
/// cache.get_or_insert_with("by reference", || 1);
/// cache.get_or_insert_with("by value".to_owned(), || 2);
/// assert_eq!(cache.len(), 2);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is neither the cache's key type `{K}` nor a reference to a borrowed form of it",
    label = "expected `{K}`, or `&Q` where `Q: ToOwned<Owned = {K}>`"
)]
pub trait LoadKey<K, Form>: sealed::Sealed<K, Form> {
    /// The form by which the key is hashed and compared.
    type Borrowed: Hash + Eq + ?Sized;

    /// Returns the key as it is hashed and compared.
    fn as_borrowed(&self) -> &Self::Borrowed;

    /// Returns the owned key, which is created from a reference.
    fn into_key(self) -> K;

    /// Returns a clone of the owned key.
    fn to_key(&self) -> K
    where
        K: Clone;
}

/// The [`LoadKey`] form of a key by value.
#[derive(Debug)]
pub enum ByValue {}

/// The [`LoadKey`] form of a key by reference.
#[derive(Debug)]
pub enum ByReference {}

mod sealed {
    pub trait Sealed<K, Form> {}
    impl<K> Sealed<K, super::ByValue> for K {}
    impl<Q: ToOwned<Owned = K> + ?Sized, K> Sealed<K, super::ByReference> for &Q {}
}

impl<K: Hash + Eq> LoadKey<K, ByValue> for K {
    type Borrowed = K;

    #[inline(always)]
    fn as_borrowed(&self) -> &K {
        self
    }

    #[inline(always)]
    fn into_key(self) -> K {
        self
    }

    #[inline(always)]
    fn to_key(&self) -> K
    where
        K: Clone,
    {
        self.clone()
    }
}

impl<K, Q> LoadKey<K, ByReference> for &Q
where
    K: Borrow<Q>,
    Q: ToOwned<Owned = K> + Hash + Eq + ?Sized,
{
    type Borrowed = Q;

    #[inline(always)]
    fn as_borrowed(&self) -> &Q {
        self
    }

    #[inline(always)]
    fn into_key(self) -> K {
        self.to_owned()
    }

    #[inline(always)]
    fn to_key(&self) -> K {
        (*self).to_owned()
    }
}
