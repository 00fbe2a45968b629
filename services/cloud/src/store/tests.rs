//! The rules of the store, against a real database in a temporary directory.

mod resources;
mod revisions;

use baetyl_model::{Kind, Namespace};

use super::*;

pub(crate) struct Fixture {
    pub(crate) store: Store,
    pub(crate) namespace: Namespace,
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) fn by() -> By {
    By {
        actor: "test".into(),
        request_id: "r1".into(),
        time: "2026-01-02T03:04:05Z".parse().unwrap(),
    }
}

pub(crate) async fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let seal = crate::seal::Seal::open_dir(dir.path()).unwrap();
    let store = Store::open(&dir.path().join("cloud.db"), seal)
        .await
        .unwrap();
    let namespace = Namespace::new("default").unwrap();
    assert!(store.create_namespace(&namespace, &by()).await.unwrap());
    Fixture {
        store,
        namespace,
        dir,
    }
}

impl Fixture {
    pub(super) async fn begin(&self) -> Tx {
        self.store.begin(&self.namespace, by()).await.unwrap()
    }
}

pub(super) fn resource(kind: Kind, name: &str, body: &str) -> NewResource {
    NewResource {
        kind,
        name: name.into(),
        labels: Default::default(),
        system: false,
        subtype: String::new(),
        selector: String::new(),
        body: body.into(),
        references: Vec::new(),
        objects: Vec::new(),
    }
}
