//! References.

use baetyl_model::desire::{AppRef, ObjectRef, ResourceRef, Unpack};
use baetyl_model::name::{ConfigKey, Kind, ResourceName, Version};

use super::{ConvertError, invalid};
use crate::resource as wire;

impl From<Kind> for wire::ResourceKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Application => Self::Application,
            Kind::Configuration => Self::Configuration,
            Kind::Secret => Self::Secret,
        }
    }
}

impl TryFrom<wire::ResourceKind> for Kind {
    type Error = ConvertError;
    fn try_from(kind: wire::ResourceKind) -> Result<Self, ConvertError> {
        match kind {
            wire::ResourceKind::Application => Ok(Self::Application),
            wire::ResourceKind::Configuration => Ok(Self::Configuration),
            wire::ResourceKind::Secret => Ok(Self::Secret),
            wire::ResourceKind::Unspecified => Err(ConvertError::Missing { field: "kind" }),
        }
    }
}

impl From<ResourceRef> for wire::ResourceRef {
    fn from(reference: ResourceRef) -> Self {
        Self {
            kind: wire::ResourceKind::from(reference.kind).into(),
            name: reference.name.into(),
            version: reference.version.into(),
            digest: reference.digest.to_string(),
            size: reference.size,
        }
    }
}

impl TryFrom<wire::ResourceRef> for ResourceRef {
    type Error = ConvertError;
    fn try_from(reference: wire::ResourceRef) -> Result<Self, ConvertError> {
        let kind = wire::ResourceKind::try_from(reference.kind).map_err(invalid("kind"))?;
        Ok(Self {
            kind: kind.try_into()?,
            name: ResourceName::new(reference.name)?,
            version: Version::new(reference.version)?,
            digest: reference.digest.parse().map_err(invalid("digest"))?,
            size: reference.size,
        })
    }
}

impl From<AppRef> for wire::ResourceRef {
    fn from(app: AppRef) -> Self {
        ResourceRef::from(app).into()
    }
}

impl TryFrom<wire::ResourceRef> for AppRef {
    type Error = ConvertError;
    fn try_from(reference: wire::ResourceRef) -> Result<Self, ConvertError> {
        AppRef::try_from(ResourceRef::try_from(reference)?).map_err(invalid("app"))
    }
}

impl From<ObjectRef> for wire::ObjectRef {
    fn from(object: ObjectRef) -> Self {
        Self {
            digest: object.digest.to_string(),
            size: object.size,
            url: object.url.unwrap_or_default(),
            configuration: object.configuration.into(),
            configuration_version: object.configuration_version.into(),
            file_name: object.file_name.into(),
            unpack: object.unpack.as_str().to_owned(),
        }
    }
}

impl TryFrom<wire::ObjectRef> for ObjectRef {
    type Error = ConvertError;
    fn try_from(object: wire::ObjectRef) -> Result<Self, ConvertError> {
        Ok(Self {
            digest: object.digest.parse().map_err(invalid("digest"))?,
            size: object.size,
            url: Some(object.url).filter(|url| !url.is_empty()),
            configuration: ResourceName::new(object.configuration)?,
            configuration_version: Version::new(object.configuration_version)?,
            file_name: ConfigKey::new(object.file_name)?,
            unpack: object.unpack.parse::<Unpack>().map_err(invalid("unpack"))?,
        })
    }
}
