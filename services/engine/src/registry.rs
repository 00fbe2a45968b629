//! Which content is needed on this node, by whom; what nobody needs is removed, and what sync lost is fetched again.
//!
//! An application registers what it needs before it looks whether it is there. Whoever removes asks under the same
//! lock, so that nothing is removed between the two.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use baetyl_model::Digest;
use baetyl_model::desire::ObjectRef;
use baetyl_model::name::AppName;

/// What one application needs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Needs {
    /// Everything, objects among it.
    pub digests: BTreeSet<Digest>,
    /// Its objects: where they are fetched from.
    pub objects: Vec<ObjectRef>,
}

/// What each application needs; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<Mutex<BTreeMap<AppName, Needs>>>);

impl Registry {
    /// Says what an application needs, instead of what was said before.
    pub fn set(&self, app: &AppName, needs: Needs) {
        self.lock().insert(app.clone(), needs);
    }

    /// The application needs nothing any more.
    pub fn remove(&self, app: &AppName) {
        self.lock().remove(app);
    }

    /// Everything anybody needs.
    pub fn union(&self) -> BTreeSet<Digest> {
        let all = self.lock();
        let digests = all.values().flat_map(|needs| &needs.digests);
        digests.copied().collect()
    }

    /// The objects each application needs, if it needs any.
    pub fn objects(&self) -> BTreeMap<AppName, Vec<ObjectRef>> {
        let all = self.lock();
        let with = all.iter().filter(|(_, needs)| !needs.objects.is_empty());
        with.map(|(app, needs)| (app.clone(), needs.objects.clone()))
            .collect()
    }

    /// True when somebody needs it.
    pub fn needs(&self, digest: &Digest) -> bool {
        let all = self.lock();
        all.values().any(|needs| needs.digests.contains(digest))
    }

    /// Runs `remove` when nobody needs it, and lets nobody need it meanwhile. Keep it short.
    pub fn unless_needed<T>(&self, digest: &Digest, remove: impl FnOnce() -> T) -> Option<T> {
        let all = self.lock();
        let needed = all.values().any(|needs| needs.digests.contains(digest));
        (!needed).then(remove)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AppName, Needs>> {
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
        let needs = |digests: &[Digest]| Needs {
            digests: digests.iter().copied().collect(),
            ..Needs::default()
        };
        registry.set(&a, needs(&[shared, own]));
        registry.set(&b, needs(&[shared]));
        registry.remove(&a);
        assert_eq!(registry.union(), BTreeSet::from([shared]));
        assert_eq!(registry.unless_needed(&shared, || ()), None);
        assert_eq!(registry.unless_needed(&own, || ()), Some(()));
        assert!(registry.needs(&shared) && !registry.needs(&own));
    }
}
