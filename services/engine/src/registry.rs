//! Which content is needed on this node, by whom; what nobody needs is removed.
//!
//! An application registers what it needs before it looks whether it is there. Whoever removes asks under the same
//! lock, so that nothing is removed between the two.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use baetyl_model::Digest;
use baetyl_model::name::AppName;

/// What each application needs; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<Mutex<BTreeMap<AppName, BTreeSet<Digest>>>>);

impl Registry {
    /// Says what an application needs, instead of what was said before.
    pub fn set(&self, app: &AppName, digests: BTreeSet<Digest>) {
        self.lock().insert(app.clone(), digests);
    }

    /// The application needs nothing any more.
    pub fn remove(&self, app: &AppName) {
        self.lock().remove(app);
    }

    /// Everything anybody needs.
    pub fn union(&self) -> BTreeSet<Digest> {
        self.lock().values().flatten().copied().collect()
    }

    /// True when somebody needs it.
    pub fn needs(&self, digest: &Digest) -> bool {
        self.lock().values().any(|digests| digests.contains(digest))
    }

    /// Runs `remove` when nobody needs it, and lets nobody need it meanwhile. Keep it short.
    pub fn unless_needed<T>(&self, digest: &Digest, remove: impl FnOnce() -> T) -> Option<T> {
        let needs = self.lock();
        let needed = needs.values().any(|digests| digests.contains(digest));
        (!needed).then(remove)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AppName, BTreeSet<Digest>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::digest;

    #[test]
    fn content_is_needed_as_long_as_one_application_needs_it() {
        let registry = Registry::default();
        let (a, b): (AppName, AppName) = ("app-a".try_into().unwrap(), "app-b".try_into().unwrap());
        let (shared, own) = (digest(b"shared"), digest(b"own"));
        registry.set(&a, BTreeSet::from([shared, own]));
        registry.set(&b, BTreeSet::from([shared]));
        registry.remove(&a);
        assert_eq!(registry.union(), BTreeSet::from([shared]));
        assert_eq!(registry.unless_needed(&shared, || ()), None);
        assert_eq!(registry.unless_needed(&own, || ()), Some(()));
        assert!(registry.needs(&shared) && !registry.needs(&own));
    }
}
