//! What the desire a node shall have is made of.

use std::sync::Arc;

use baetyl_model::{Desire, Epoch, Generation};

use crate::desire::{self, DeriveError};
use crate::store::{AppRow, NodeRow};

/// What the wanted desire is made of. Kept instead of the desire: its parts are shared with all other streams.
pub(super) struct Wanted {
    pub(super) node: Arc<NodeRow>,
    pub(super) apps: Vec<Arc<AppRow>>,
    pub(super) generation: Generation,
}

impl Wanted {
    pub(super) fn derive(&self, epoch: Epoch) -> Result<Desire, DeriveError> {
        desire::derive_desire(&self.node, &self.apps, epoch, self.generation)
    }

    /// True when a desire of these rows has the same content: (name, version) of an application determine all that it
    /// references.
    pub(super) fn has_content(&self, node: &NodeRow, apps: &[Arc<AppRow>]) -> bool {
        let version = |app: &Arc<AppRow>| (app.version, app.digest);
        self.node.properties == node.properties
            && desire::desired_core(&self.node) == desire::desired_core(node)
            && self.apps.len() == apps.len()
            && self
                .apps
                .iter()
                .zip(apps)
                .all(|(a, b)| a.name == b.name && version(a) == version(b))
    }
}
