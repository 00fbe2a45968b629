//! Who a certificate inside a node speaks for: one URI, made and read here and nowhere else.

use std::fmt;
use std::str::FromStr;

use baetyl_kit::tls::CertificateInfo;
use baetyl_model::name::{AppName, Namespace};
use baetyl_proto::callers::Role;
use rustls_pki_types::CertificateDer;

/// What all URIs of a node begin with. It names no node: authorities are those of one node alone.
const TRUST_DOMAIN: &str = "spiffe://node.baetyl/";

/// Roles that a certificate may name; the others are proved otherwise.
const CORE: [Role; 6] = [
    Role::Init,
    Role::Node,
    Role::Sync,
    Role::Engine,
    Role::Proxy,
    Role::Admin,
];

/// Who shows a certificate of the node's authority: the only SPIFFE id in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallerId {
    /// `spiffe://node.baetyl/core/<role>`: a service of the node, or its administrator.
    Core(Role),
    /// `spiffe://node.baetyl/app/<namespace>/<app>`: an application.
    App {
        /// Its namespace.
        namespace: Namespace,
        /// Its name.
        app: AppName,
    },
}

/// A certificate or text that names nobody inside a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallerIdError {
    /// The certificate cannot be read.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// No SPIFFE id, or several.
    #[error("the certificate of {0:?} names no caller (or more than one)")]
    None(String),
    /// Another id.
    #[error(
        "{0:?} is no caller of this node; write spiffe://node.baetyl/core/<role> or spiffe://node.baetyl/app/<namespace>/<app>"
    )]
    Unknown(String),
}

impl CallerId {
    /// Who a verified certificate speaks for.
    ///
    /// # Errors
    /// When it names nobody, or more than one.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, CallerIdError> {
        let info = CertificateInfo::parse(certificate).map_err(|_| CallerIdError::Unreadable)?;
        match info.spiffe_id() {
            Some(id) => id.parse(),
            None => Err(CallerIdError::None(info.common_name.unwrap_or_default())),
        }
    }
}

impl fmt::Display for CallerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Core(role) => write!(f, "{TRUST_DOMAIN}core/{role}"),
            Self::App { namespace, app } => write!(f, "{TRUST_DOMAIN}app/{namespace}/{app}"),
        }
    }
}

impl FromStr for CallerId {
    type Err = CallerIdError;

    fn from_str(text: &str) -> Result<Self, CallerIdError> {
        let unknown = || CallerIdError::Unknown(text.to_owned());
        let path = text.strip_prefix(TRUST_DOMAIN).ok_or_else(unknown)?;
        let parts: Vec<&str> = path.split('/').collect();
        match parts.as_slice() {
            ["core", word] => {
                let role = CORE.into_iter().find(|role| role.as_str() == *word);
                role.map(Self::Core).ok_or_else(unknown)
            }
            ["app", namespace, app] => Ok(Self::App {
                namespace: Namespace::new(*namespace).map_err(|_| unknown())?,
                app: AppName::new(*app).map_err(|_| unknown())?,
            }),
            _ => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_was_written() {
        for role in CORE {
            let text = CallerId::Core(role).to_string();
            assert_eq!(text, format!("spiffe://node.baetyl/core/{role}"));
            assert_eq!(text.parse(), Ok(CallerId::Core(role)));
        }
        let app = CallerId::App {
            namespace: "baetyl-edge".try_into().unwrap(),
            app: "line.one".try_into().unwrap(),
        };
        let text = app.to_string();
        assert_eq!(text, "spiffe://node.baetyl/app/baetyl-edge/line.one");
        assert_eq!(text.parse(), Ok(app));
    }

    #[test]
    fn what_is_no_id_of_a_node_is_nobody() {
        for text in [
            "",
            "spiffe://node.baetyl",
            "spiffe://node.baetyl/core",
            "spiffe://node.baetyl/core/",
            "spiffe://node.baetyl/core/king",
            "spiffe://node.baetyl/core/app",
            "spiffe://node.baetyl/core/device",
            "spiffe://node.baetyl/core/anyone",
            "spiffe://node.baetyl/core/engine/",
            "spiffe://node.baetyl/core/engine/more",
            "spiffe://node.baetyl/app/shop",
            "spiffe://node.baetyl/app/baetyl-edge/Shop",
            "spiffe://node.baetyl/app//shop",
            "spiffe://node.baetyl.test/core/engine",
            "spiffe://baetyl/ns/default/node/n-1",
            "https://node.baetyl/core/engine",
        ] {
            assert_eq!(
                text.parse::<CallerId>(),
                Err(CallerIdError::Unknown(text.to_owned())),
                "{text}"
            );
        }
    }
}
