//! All applications by name: those engine lists and those that have a runtime.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use baetyl_kit::metrics::Metrics;

use crate::app::{App, Limits};
use crate::directory::Directory;
use crate::meters::Meters;

/// The table of applications.
#[derive(Debug)]
pub(crate) struct Apps {
    table: RwLock<HashMap<String, Arc<App>>>,
    metrics: Metrics,
    limits: Limits,
}

impl Apps {
    pub(crate) fn new(metrics: &Metrics, limits: Limits) -> Self {
        Self {
            table: RwLock::default(),
            metrics: metrics.clone(),
            limits,
        }
    }

    /// The application of that name, if it is known.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<App>> {
        self.table
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned()
    }

    /// All applications, in no order.
    pub(crate) fn all(&self) -> Vec<Arc<App>> {
        self.table
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// Runs `change` on the application of that name, which is made if it is not known. The table is held meanwhile,
    /// so that it cannot be forgotten before a runtime is in it.
    pub(crate) fn with<T>(&self, name: &str, change: impl FnOnce(&App) -> T) -> (Arc<App>, T) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let app = table
            .entry(name.to_owned())
            .or_insert_with(|| self.make(name));
        let result = change(app);
        (Arc::clone(app), result)
    }

    /// Adds what the directory lists and forgets what it does not list and nobody uses.
    pub(crate) fn follow(&self, directory: &Directory) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.retain(|name, app| directory.app(name).is_some() || !app.is_empty());
        for (name, _) in directory.apps() {
            if !table.contains_key(name) {
                table.insert(name.clone(), self.make(name));
            }
        }
    }

    /// Forgets an application whose last runtime went, if the directory does not list it either.
    pub(crate) fn forget(&self, name: &str, directory: Option<&Directory>) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let listed = directory.is_some_and(|directory| directory.app(name).is_some());
        if !listed && table.get(name).is_some_and(|app| app.is_empty()) {
            table.remove(name);
        }
    }

    fn make(&self, name: &str) -> Arc<App> {
        Arc::new(App::new(
            name,
            self.limits.clone(),
            Meters::new(&self.metrics, name),
        ))
    }
}
