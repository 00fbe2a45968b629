//! Who a node is, as its certificate says it.
//!
//! Authoritative is the URI `spiffe://<trust domain>/ns/<namespace>/node/<uid>`. The common name is for people and for
//! Baetyl v2's programs only.

use baetyl_kit::tls::{CertificateInfo, fingerprint};
use baetyl_model::{Namespace, NodeName, NodeUid};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;

/// Longest common name X.520 allows.
const COMMON_NAME_MAX: usize = 64;

/// A node as the cloud knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeIdentity {
    /// Tenant.
    pub namespace: Namespace,
    /// Name inside the namespace.
    pub name: NodeName,
    /// Immutable id.
    pub uid: NodeUid,
}

impl NodeIdentity {
    /// The URI in the certificate.
    pub fn spiffe(&self, trust_domain: &str) -> String {
        format!(
            "spiffe://{trust_domain}/ns/{}/node/{}",
            self.namespace, self.uid
        )
    }

    /// `<namespace>.<node>`, as Baetyl v2 names a node.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.namespace, self.name)
    }

    /// The common name of the certificate; none when it would be too long for one.
    pub fn common_name(&self) -> Option<String> {
        Some(self.full_name()).filter(|name| name.len() <= COMMON_NAME_MAX)
    }
}

/// What a verified client certificate says about its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Tenant.
    pub namespace: Namespace,
    /// Immutable id of the node.
    pub uid: NodeUid,
    /// sha256 of the public key (SubjectPublicKeyInfo).
    pub public_key: [u8; 32],
    /// sha256 of the DER certificate, as hex.
    pub fingerprint: String,
    /// End of the certificate's life.
    pub not_after: Timestamp,
}

/// A certificate that does not say which node it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not a certificate.
    #[error("the client certificate is not valid X.509")]
    Malformed,
    /// No or several SPIFFE URIs.
    #[error(
        "the client certificate names no node; it needs exactly one URI spiffe://{trust_domain}/ns/<namespace>/node/<uid>"
    )]
    NoUri {
        /// The trust domain of this cloud.
        trust_domain: String,
    },
    /// A URI of another shape or trust domain.
    #[error("the client certificate names {uri}, which is no node of trust domain {trust_domain}")]
    ForeignUri {
        /// What it names.
        uri: String,
        /// The trust domain of this cloud.
        trust_domain: String,
    },
}

impl PeerIdentity {
    /// Reads a leaf certificate. Checks no signature: the chain must have been verified.
    ///
    /// # Errors
    /// When the certificate names no node of this trust domain.
    pub fn from_certificate(
        certificate: &CertificateDer<'_>,
        trust_domain: &str,
    ) -> Result<Self, IdentityError> {
        let info = CertificateInfo::parse(certificate).map_err(|_| IdentityError::Malformed)?;
        let uri = info.spiffe_id().ok_or_else(|| IdentityError::NoUri {
            trust_domain: trust_domain.to_owned(),
        })?;
        let (namespace, uid) =
            parse_spiffe(uri, trust_domain).ok_or_else(|| IdentityError::ForeignUri {
                uri: uri.to_owned(),
                trust_domain: trust_domain.to_owned(),
            })?;
        Ok(Self {
            namespace,
            uid,
            public_key: info.spki_sha256,
            fingerprint: fingerprint(certificate),
            not_after: Timestamp::from_second(info.not_after)
                .map_err(|_| IdentityError::Malformed)?,
        })
    }

    /// True when the certificate's life is over.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now > self.not_after
    }
}

fn parse_spiffe(uri: &str, trust_domain: &str) -> Option<(Namespace, NodeUid)> {
    let path = uri
        .strip_prefix("spiffe://")?
        .strip_prefix(trust_domain)?
        .strip_prefix("/ns/")?;
    let (namespace, uid) = path.split_once("/node/")?;
    Some((Namespace::new(namespace).ok()?, NodeUid::new(uid).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(namespace: &str, name: &str) -> NodeIdentity {
        NodeIdentity {
            namespace: namespace.parse().unwrap(),
            name: name.parse().unwrap(),
            uid: "0a1b".parse().unwrap(),
        }
    }

    #[test]
    fn the_uri_is_read_as_it_is_written() {
        let node = identity("default", "edge-1");
        let uri = node.spiffe("baetyl.local");
        assert_eq!(uri, "spiffe://baetyl.local/ns/default/node/0a1b");
        assert_eq!(
            parse_spiffe(&uri, "baetyl.local"),
            Some((node.namespace, node.uid))
        );
    }

    #[test]
    fn other_trust_domains_and_shapes_are_no_nodes() {
        for uri in [
            "spiffe://other/ns/default/node/0a1b",
            "spiffe://baetyl.local.evil/ns/default/node/0a1b",
            "spiffe://baetyl.local/ns/default/node/",
            "spiffe://baetyl.local/ns//node/0a1b",
            "spiffe://baetyl.local/ns/default/node/0a1b/node/x",
            "spiffe://baetyl.local/ns/default",
            "https://baetyl.local/ns/default/node/0a1b",
        ] {
            assert_eq!(parse_spiffe(uri, "baetyl.local"), None, "{uri}");
        }
    }

    #[test]
    fn a_common_name_that_would_be_too_long_is_left_out() {
        assert_eq!(
            identity("default", "edge-1").common_name().as_deref(),
            Some("default.edge-1")
        );
        assert_eq!(
            identity(&"n".repeat(40), &"m".repeat(23))
                .common_name()
                .map(|name| name.len()),
            Some(64)
        );
        assert_eq!(
            identity(&"n".repeat(40), &"m".repeat(24)).common_name(),
            None
        );
    }
}
