//! Who this node is and how it proves it: names, uid, key, certificates, and whom it trusts.
//!
//! [`Identity`] is checked once, when it is made from what init or the cloud gave; [`store`] keeps it over power cuts;
//! [`renew`] replaces its certificate in time.

use std::fmt;

use baetyl_kit::crypto;
use baetyl_kit::grpc::Endpoint;
use baetyl_kit::tls::{self, CertificateInfo, Roots};
use baetyl_model::{NameError, Namespace, NodeName, NodeUid};
use baetyl_proto::sign::PublicKey;
use baetyl_proto::sync::InstallIdentityRequest;
use rcgen::{KeyPair, PublicKeyData as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

pub(crate) mod renew;
pub(crate) mod store;

/// An identity that cannot be used, with every reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the identity cannot be used: {}", .0.join("; "))]
pub(crate) struct InvalidIdentity(pub(crate) Vec<String>);

/// Who this node is. Its parts go together: the key is the leaf's, the leaf names the uid.
pub(crate) struct Identity {
    pub(crate) namespace: Namespace,
    pub(crate) node_name: NodeName,
    pub(crate) node_uid: NodeUid,
    /// Leaf first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// Who may sign the cloud's certificate.
    pub(crate) authorities: Vec<CertificateDer<'static>>,
    /// Who may sign desires.
    pub(crate) desire_keys: Vec<PublicKey>,
    /// Tried in order.
    pub(crate) link_addresses: Vec<Endpoint>,
    key: PrivatePkcs8KeyDer<'static>,
    leaf: CertificateInfo,
}

/// The unchecked parts of an identity.
#[derive(Clone, Default)]
pub(crate) struct Parts {
    pub(crate) namespace: String,
    pub(crate) node_name: String,
    pub(crate) node_uid: String,
    pub(crate) key: Vec<u8>,
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) authorities: Vec<Vec<u8>>,
    pub(crate) desire_keys: Vec<Vec<u8>>,
    pub(crate) link_addresses: Vec<String>,
}

impl From<InstallIdentityRequest> for Parts {
    fn from(request: InstallIdentityRequest) -> Self {
        let lists = |list: Vec<bytes::Bytes>| list.iter().map(|item| item.to_vec()).collect();
        Self {
            namespace: request.namespace,
            node_name: request.node_name,
            node_uid: request.node_uid,
            key: request.private_key.to_vec(),
            chain: lists(request.certificate_chain),
            authorities: lists(request.trusted_authorities),
            desire_keys: lists(request.desire_keys),
            link_addresses: request.link_addresses,
        }
    }
}

impl From<Parts> for InstallIdentityRequest {
    fn from(parts: Parts) -> Self {
        let lists = |list: Vec<Vec<u8>>| list.into_iter().map(Into::into).collect();
        Self {
            namespace: parts.namespace,
            node_name: parts.node_name,
            node_uid: parts.node_uid,
            private_key: parts.key.into(),
            certificate_chain: lists(parts.chain),
            trusted_authorities: lists(parts.authorities),
            desire_keys: lists(parts.desire_keys),
            link_addresses: parts.link_addresses,
        }
    }
}

impl TryFrom<Parts> for Identity {
    type Error = InvalidIdentity;

    fn try_from(parts: Parts) -> Result<Self, InvalidIdentity> {
        let mut faults = Faults::default();
        let name = |error: NameError| error.to_string();
        let namespace = faults.note(Namespace::new(parts.namespace).map_err(name));
        let node_name = faults.note(NodeName::new(parts.node_name).map_err(name));
        let node_uid = faults.note(NodeUid::new(parts.node_uid).map_err(name));
        let key = PrivatePkcs8KeyDer::from(parts.key);
        let public = faults.note(spki_of(&key));
        let chain = certificates(parts.chain);
        let leaf = faults.note(read_leaf(&chain));
        if let (Some(leaf), Some(public)) = (&leaf, public)
            && leaf.spki_sha256 != public
        {
            faults.say("the certificate is not for the private key");
        }
        if let (Some(leaf), Some(namespace), Some(uid)) = (&leaf, &namespace, &node_uid) {
            faults.note(check_name(leaf, namespace, uid));
        }
        let authorities = certificates(parts.authorities);
        if let Err(error) = Roots::new(&authorities) {
            faults.say(format!("the trusted authorities: {error}"));
        }
        let desire_keys = faults.note(desire_keys(&parts.desire_keys));
        let link_addresses = faults.note(addresses(&parts.link_addresses));
        match (
            namespace,
            node_name,
            node_uid,
            leaf,
            desire_keys,
            link_addresses,
        ) {
            (
                Some(namespace),
                Some(node_name),
                Some(node_uid),
                Some(leaf),
                Some(desire_keys),
                Some(link_addresses),
            ) if faults.0.is_empty() => Ok(Self {
                namespace,
                node_name,
                node_uid,
                chain,
                authorities,
                desire_keys,
                link_addresses,
                key,
                leaf,
            }),
            _ => Err(InvalidIdentity(faults.0)),
        }
    }
}

impl Identity {
    /// What it is made of.
    pub(crate) fn parts(&self) -> Parts {
        let raw = |list: &[CertificateDer<'_>]| list.iter().map(|der| der.to_vec()).collect();
        Parts {
            namespace: self.namespace.to_string(),
            node_name: self.node_name.to_string(),
            node_uid: self.node_uid.to_string(),
            key: self.key.secret_pkcs8_der().to_vec(),
            chain: raw(&self.chain),
            authorities: raw(&self.authorities),
            desire_keys: self.desire_keys.iter().map(|key| key.to_vec()).collect(),
            link_addresses: self
                .link_addresses
                .iter()
                .map(ToString::to_string)
                .collect(),
        }
    }

    /// The same node with another key and certificate.
    ///
    /// # Errors
    /// When they do not go together or are not this node's.
    pub(crate) fn renewed(
        &self,
        key: Vec<u8>,
        chain: Vec<Vec<u8>>,
        authorities: Vec<Vec<u8>>,
    ) -> Result<Self, InvalidIdentity> {
        Self::try_from(Parts {
            key,
            chain,
            authorities,
            ..self.parts()
        })
    }

    /// What TLS shows to the cloud.
    pub(crate) fn for_tls(&self) -> tls::Identity {
        tls::Identity::new(
            self.chain.clone(),
            PrivateKeyDer::Pkcs8(self.key.clone_key()),
        )
    }

    /// sha256 hex of the leaf.
    pub(crate) fn fingerprint(&self) -> String {
        self.chain
            .first()
            .map_or_else(String::new, tls::fingerprint)
    }

    /// Names the key pair: the first 16 hex digits of the sha256 of its public half.
    pub(crate) fn key_name(&self) -> String {
        crypto::hex(&self.leaf.spki_sha256[..8])
    }

    /// Begin of the leaf's validity, Unix seconds.
    pub(crate) fn not_before(&self) -> i64 {
        self.leaf.not_before
    }

    /// End of the leaf's validity, Unix seconds.
    pub(crate) fn not_after(&self) -> i64 {
        self.leaf.not_after
    }

    /// True when both are made of the same parts.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.namespace == other.namespace
            && self.node_name == other.node_name
            && self.node_uid == other.node_uid
            && self.chain == other.chain
            && self.authorities == other.authorities
            && self.desire_keys == other.desire_keys
            && self.link_addresses == other.link_addresses
    }
}

/// Without the key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("namespace", &self.namespace)
            .field("node", &self.node_name)
            .field("uid", &self.node_uid)
            .field("fingerprint", &self.fingerprint())
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn say(&mut self, fault: impl Into<String>) {
        self.0.push(fault.into());
    }

    fn note<T>(&mut self, result: Result<T, String>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(fault) => {
                self.say(fault);
                None
            }
        }
    }
}

fn certificates(list: Vec<Vec<u8>>) -> Vec<CertificateDer<'static>> {
    list.into_iter().map(CertificateDer::from).collect()
}

fn spki_of(key: &PrivatePkcs8KeyDer<'_>) -> Result<[u8; 32], String> {
    KeyPair::try_from(key)
        .map(|pair| crypto::sha256(&pair.subject_public_key_info()))
        .map_err(|_| "the private key is no PKCS#8 key of a supported kind".to_owned())
}

fn read_leaf(chain: &[CertificateDer<'static>]) -> Result<CertificateInfo, String> {
    let leaf = chain.first().ok_or("the certificate chain is empty")?;
    CertificateInfo::parse(leaf).map_err(|error| format!("the certificate: {error}"))
}

/// The leaf's SPIFFE id is what the cloud goes by; it must be this node's.
fn check_name(leaf: &CertificateInfo, namespace: &Namespace, uid: &NodeUid) -> Result<(), String> {
    let id = leaf
        .spiffe_id()
        .ok_or("the certificate names no node (exactly one spiffe:// name is wanted)")?;
    let path = id
        .strip_prefix("spiffe://")
        .and_then(|rest| rest.split_once('/'))
        .map(|(_, path)| path);
    if path == Some(&format!("ns/{namespace}/node/{uid}")) {
        return Ok(());
    }
    Err(format!(
        "the certificate is for {id}, not for node uid {uid} of namespace {namespace}"
    ))
}

fn desire_keys(keys: &[Vec<u8>]) -> Result<Vec<PublicKey>, String> {
    let parsed: Result<Vec<PublicKey>, _> = keys
        .iter()
        .map(|key| PublicKey::try_from(key.as_slice()))
        .collect();
    match parsed {
        Ok(keys) if !keys.is_empty() => Ok(keys),
        Ok(_) => Err("no key that signs desires is given".to_owned()),
        Err(_) => Err("a key that signs desires is not 32 bytes long".to_owned()),
    }
}

fn addresses(texts: &[String]) -> Result<Vec<Endpoint>, String> {
    let mut addresses = Vec::new();
    for text in texts {
        match text.parse() {
            Ok(endpoint @ Endpoint::Https(_)) => addresses.push(endpoint),
            Ok(_) | Err(_) => return Err(format!("{text:?} is no https://host:port")),
        }
    }
    if addresses.is_empty() {
        return Err("no address of the cloud is given".to_owned());
    }
    Ok(addresses)
}
