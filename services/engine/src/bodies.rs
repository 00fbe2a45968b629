//! The parsed bodies of one release: the application, its configurations and its secrets.

use std::collections::BTreeMap;

use baetyl_model::desire::{DesiredApp, ResourceRef};
use baetyl_model::name::{Kind, ResourceName};
use baetyl_model::strict::{self, ParseError};
use baetyl_model::{Application, Configuration, Digest, Secret};

/// Everything one application version is made of, except objects.
#[derive(Debug, Clone, Default)]
pub struct Bodies {
    /// The application.
    pub app: Application,
    /// Configurations by name.
    pub configurations: BTreeMap<ResourceName, Configuration>,
    /// Secrets by name.
    pub secrets: BTreeMap<ResourceName, Secret>,
}

/// Why a release cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The bytes are not at hand (any more).
    #[error("the content of {0} is not on this node; it has to be staged again")]
    Missing(Box<ResourceRef>),
    /// The bytes are no such resource.
    #[error("the content of {reference} cannot be read")]
    Malformed {
        /// Which one.
        reference: Box<ResourceRef>,
        /// Why.
        #[source]
        source: ParseError,
    },
    /// The body is another resource than its reference says.
    #[error("the content of {reference} is that of \"{found}\"")]
    Misnamed {
        /// Which one.
        reference: Box<ResourceRef>,
        /// Name in the body.
        found: String,
    },
}

impl BodyError {
    /// True when fetching again can help.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing(_))
    }
}

impl Bodies {
    /// Parses what `read` gives for the digests of `release`.
    ///
    /// # Errors
    /// The first body that is missing or no such resource.
    pub fn parse(
        release: &DesiredApp,
        read: impl Fn(&Digest) -> Option<Vec<u8>>,
    ) -> Result<Self, BodyError> {
        let mut bodies = Self::default();
        for reference in release.references() {
            let Some(bytes) = read(&reference.digest) else {
                return Err(BodyError::Missing(Box::new(reference)));
            };
            let malformed = |source| BodyError::Malformed {
                reference: Box::new(reference.clone()),
                source,
            };
            let name = match reference.kind {
                Kind::Application => {
                    bodies.app = strict::parse(&bytes).map_err(malformed)?.value;
                    bodies.app.name.clone()
                }
                Kind::Configuration => {
                    let parsed: Configuration = strict::parse(&bytes).map_err(malformed)?.value;
                    let name = parsed.name.clone();
                    bodies.configurations.insert(reference.name.clone(), parsed);
                    name
                }
                Kind::Secret => {
                    let parsed: Secret = strict::parse(&bytes).map_err(malformed)?.value;
                    let name = parsed.name.clone();
                    bodies.secrets.insert(reference.name.clone(), parsed);
                    name
                }
            };
            if reference.name != *name {
                return Err(BodyError::Misnamed {
                    reference: Box::new(reference),
                    found: name,
                });
            }
        }
        Ok(bodies)
    }
}
