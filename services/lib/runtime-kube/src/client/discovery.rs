//! Which kinds the API server has. Answers are remembered until a kind is asked for that is not among them.

use std::sync::PoisonError;

use serde::Deserialize;

use super::{Api, Call, Resource};
use crate::error::{ErrorKind, KubeError};

/// Kinds of one group and version.
#[derive(Clone, Deserialize, Default)]
#[serde(default)]
pub(super) struct Known {
    resources: Option<Vec<Kind>>,
}

#[derive(Clone, Deserialize)]
struct Kind {
    /// Plural; with a slash it is a part of a kind.
    name: String,
    kind: String,
    namespaced: bool,
}

impl Known {
    fn find(&self, api_version: &str, kind: &str) -> Option<Resource> {
        let found = self
            .resources
            .iter()
            .flatten()
            .find(|known| known.kind == kind && !known.name.contains('/'))?;
        Some(Resource {
            api_version: api_version.to_owned().into(),
            kind: kind.to_owned().into(),
            plural: found.name.clone().into(),
            namespaced: found.namespaced,
        })
    }
}

impl Api {
    /// Where the API server has a kind.
    ///
    /// # Errors
    /// When it has none of that name, in the words `kubectl` has for it.
    pub(crate) async fn resource(
        &self,
        api_version: &str,
        kind: &str,
    ) -> Result<Resource, KubeError> {
        let own = Resource::OF_NAMESPACE
            .iter()
            .find(|known| known.api_version == api_version && known.kind == kind);
        if let Some(own) = own {
            return Ok(own.clone());
        }
        let remembered = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known
                .get(api_version)
                .and_then(|known| known.find(api_version, kind))
        };
        if let Some(resource) = remembered {
            return Ok(resource);
        }
        let root = if api_version.contains('/') {
            "apis"
        } else {
            "api"
        };
        let path = format!(
            "/{root}/{}",
            api_version
                .split('/')
                .map(super::resource::encode)
                .collect::<Vec<_>>()
                .join("/")
        );
        let found: Known = self.find(Call::get(path)).await?.unwrap_or_default();
        let resource = found.find(api_version, kind);
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(api_version.to_owned(), found);
        resource.ok_or_else(|| {
            KubeError::new(
                ErrorKind::Refused,
                format!(
                    "no matches for kind \"{kind}\" in version \"{api_version}\"; ensure CRDs are installed first"
                ),
            )
        })
    }
}
