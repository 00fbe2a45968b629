//! Desire and its header.

use std::collections::BTreeMap;

use baetyl_model::desire::{Desire, DesiredApp, DesiredCore, Header};
use baetyl_model::name::{Epoch, Generation, Namespace, NodeName, NodeUid};

use super::{ConvertError, all, invalid, missing};
use crate::shadow as wire;

/// Properties, in order of their keys.
pub fn properties_to_wire(properties: BTreeMap<String, String>) -> Vec<wire::Property> {
    properties
        .into_iter()
        .map(|(key, value)| wire::Property { key, value })
        .collect()
}

/// Properties; a repeated key is refused.
pub fn properties_from_wire(
    field: &'static str,
    properties: Vec<wire::Property>,
) -> Result<BTreeMap<String, String>, ConvertError> {
    let mut map = BTreeMap::new();
    for wire::Property { key, value } in properties {
        if map.contains_key(&key) {
            return Err(ConvertError::Invalid {
                field,
                message: format!("\"{key}\" is given twice"),
            });
        }
        map.insert(key, value);
    }
    Ok(map)
}

impl From<Header> for wire::DesireHeader {
    fn from(header: Header) -> Self {
        Self {
            node_uid: header.node_uid.into(),
            epoch: header.epoch.get(),
            generation: header.generation.get(),
            digest: header.digest.to_string(),
        }
    }
}

impl TryFrom<wire::DesireHeader> for Header {
    type Error = ConvertError;
    fn try_from(header: wire::DesireHeader) -> Result<Self, ConvertError> {
        Ok(Self {
            node_uid: NodeUid::new(header.node_uid)?,
            epoch: Epoch(header.epoch),
            generation: Generation(header.generation),
            digest: header.digest.parse().map_err(invalid("digest"))?,
        })
    }
}

impl From<DesiredApp> for wire::DesiredApp {
    fn from(app: DesiredApp) -> Self {
        Self {
            app: Some(app.app.into()),
            resources: app.resources.into_iter().map(Into::into).collect(),
            objects: app.objects.into_iter().map(Into::into).collect(),
            system: app.system,
        }
    }
}

impl TryFrom<wire::DesiredApp> for DesiredApp {
    type Error = ConvertError;
    fn try_from(app: wire::DesiredApp) -> Result<Self, ConvertError> {
        Ok(Self {
            app: app.app.ok_or_else(missing("app"))?.try_into()?,
            resources: all(app.resources)?,
            objects: all(app.objects)?,
            system: app.system,
        })
    }
}

impl From<DesiredCore> for wire::DesiredCore {
    fn from(core: DesiredCore) -> Self {
        let DesiredCore {
            version,
            class,
            registry,
        } = core;
        Self {
            version,
            class,
            registry,
        }
    }
}

impl From<wire::DesiredCore> for DesiredCore {
    fn from(core: wire::DesiredCore) -> Self {
        let wire::DesiredCore {
            version,
            class,
            registry,
        } = core;
        Self {
            version,
            class,
            registry,
        }
    }
}

impl From<Desire> for wire::Desire {
    fn from(desire: Desire) -> Self {
        Self {
            namespace: desire.namespace.into(),
            node_name: desire.node_name.into(),
            node_uid: desire.node_uid.into(),
            epoch: desire.epoch.get(),
            generation: desire.generation.get(),
            digest: desire.digest.to_string(),
            apps: desire.apps.into_iter().map(Into::into).collect(),
            node_properties: properties_to_wire(desire.node_properties),
            core: desire.core.map(Into::into),
        }
    }
}

impl TryFrom<wire::Desire> for Desire {
    type Error = ConvertError;
    fn try_from(desire: wire::Desire) -> Result<Self, ConvertError> {
        let apps: Vec<DesiredApp> = all(desire.apps)?;
        if let Some(pair) = apps
            .windows(2)
            .find(|pair| pair[0].app.name >= pair[1].app.name)
        {
            let message = format!(
                "{} does not come after {}",
                pair[1].app.name, pair[0].app.name
            );
            return Err(ConvertError::Invalid {
                field: "apps",
                message,
            });
        }
        Ok(Self {
            namespace: Namespace::new(desire.namespace)?,
            node_name: NodeName::new(desire.node_name)?,
            node_uid: NodeUid::new(desire.node_uid)?,
            epoch: Epoch(desire.epoch),
            generation: Generation(desire.generation),
            digest: desire.digest.parse().map_err(invalid("digest"))?,
            apps,
            node_properties: properties_from_wire("node_properties", desire.node_properties)?,
            core: desire.core.map(Into::into),
        })
    }
}
