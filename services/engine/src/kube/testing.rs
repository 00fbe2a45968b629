//! Secrets of a cluster that is not there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::secrets::{Data, Secrets};
use crate::ports::RuntimeError;

#[derive(Debug, Default)]
struct Inner {
    held: BTreeMap<String, Data>,
    writes: usize,
    failures: usize,
}

/// By name, whatever the namespace.
#[derive(Debug, Clone, Default)]
pub(crate) struct FakeSecrets(Arc<Mutex<Inner>>);

impl FakeSecrets {
    pub(crate) fn held(&self, name: &str) -> Option<Data> {
        self.0.lock().unwrap().held.get(name).cloned()
    }

    pub(crate) fn hold(&self, name: &str, data: Data) {
        self.0.lock().unwrap().held.insert(name.to_owned(), data);
    }

    pub(crate) fn writes(&self) -> usize {
        self.0.lock().unwrap().writes
    }

    /// The next calls fail.
    pub(crate) fn fail(&self, calls: usize) {
        self.0.lock().unwrap().failures = calls;
    }

    fn answer(&self) -> Result<(), RuntimeError> {
        let mut inner = self.0.lock().unwrap();
        if inner.failures == 0 {
            return Ok(());
        }
        inner.failures -= 1;
        Err(RuntimeError::Failed("the API server is away".to_owned()))
    }
}

impl Secrets for FakeSecrets {
    async fn get(&self, _: &str, name: &str) -> Result<Option<Data>, RuntimeError> {
        self.answer()?;
        Ok(self.held(name))
    }

    async fn put(
        &self,
        _: &str,
        name: &str,
        _: &BTreeMap<String, String>,
        data: &Data,
    ) -> Result<(), RuntimeError> {
        self.answer()?;
        self.hold(name, data.clone());
        self.0.lock().unwrap().writes += 1;
        Ok(())
    }

    async fn remove(&self, _: &str, name: &str) -> Result<(), RuntimeError> {
        self.answer()?;
        self.0.lock().unwrap().held.remove(name);
        Ok(())
    }
}
