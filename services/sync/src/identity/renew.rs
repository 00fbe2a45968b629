//! A new certificate at two thirds of the old one's life, for a new key; the old one stays until the new one has worked.

use std::sync::Arc;

use baetyl_model::trust::Validity;
use baetyl_proto::link::RenewCertificateRequest;
use baetyl_proto::link::link_service_client::LinkServiceClient;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use tonic::Status;
use tonic::transport::Channel;

use super::store::{IdentityError, IdentityStore};
use super::{Identity, InvalidIdentity};
use crate::blocking;
use crate::trust::TrustClock;

/// Why a certificate is not renewed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RenewError {
    /// No key or request could be made.
    #[error("no key could be made for a new certificate")]
    Key(#[from] rcgen::Error),
    /// The cloud refused.
    #[error("the cloud does not renew the certificate: {0}")]
    Refused(Status),
    /// What the cloud gave is of no use.
    #[error("the cloud gave a certificate that is of no use")]
    Useless(#[from] InvalidIdentity),
    /// It could not be kept.
    #[error("the new certificate cannot be kept")]
    Store(#[from] IdentityError),
}

/// How a certificate is renewed over one connection.
#[derive(Clone)]
pub(crate) struct Renewal {
    channel: Channel,
    store: Arc<IdentityStore>,
    trust: Arc<TrustClock>,
}

impl Renewal {
    pub(crate) fn new(channel: Channel, store: Arc<IdentityStore>, trust: Arc<TrustClock>) -> Self {
        Self {
            channel,
            store,
            trust,
        }
    }

    /// True when the identity in use is old enough and has no successor yet.
    pub(crate) fn is_due(&self, identity: &Identity) -> bool {
        let life = Validity::from_seconds(identity.not_before(), identity.not_after());
        self.store.pending().is_none() && life.is_renewal_due(self.trust.now())
    }

    /// Gets a successor for `identity` and keeps it beside it.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn renew(self, identity: Arc<Identity>) -> Result<(), RenewError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        // The cloud writes the names of the node itself.
        params.distinguished_name = DistinguishedName::new();
        let request = RenewCertificateRequest {
            csr: params.serialize_request(&key)?.der().to_vec().into(),
        };
        let mut client = LinkServiceClient::new(self.channel);
        let answer = client
            .renew_certificate(baetyl_kit::grpc::unary(request))
            .await
            .map_err(RenewError::Refused)?
            .into_inner();
        let raw = |list: Vec<bytes::Bytes>| list.iter().map(|der| der.to_vec()).collect();
        let authorities = if answer.trusted_authorities.is_empty() {
            identity.parts().authorities
        } else {
            raw(answer.trusted_authorities)
        };
        let successor = identity.renewed(
            key.serialize_der(),
            raw(answer.certificate_chain),
            authorities,
        )?;
        let store = self.store;
        blocking(move || store.set_pending(successor)).await?;
        tracing::info!("the certificate of this node is renewed; it is tried out now");
        Ok(())
    }
}
