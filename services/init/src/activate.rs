//! The conversation with the cloud's activation server.

use std::sync::Arc;
use std::time::Duration;

use baetyl_kit::grpc::{Client, Connect, Endpoint};
use baetyl_kit::tls::{self, CertTime, Pin, ServerTrust};
use baetyl_model::report::RunMode;
use baetyl_model::trust::{RELEASED, Validity, edge_accepts_cloud};
use baetyl_proto::activation::activate_request::Proof;
use baetyl_proto::activation::activation_service_client::ActivationServiceClient;
use baetyl_proto::activation::{ActivateRequest, ActivateResponse};
use jiff::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use tonic::Status;

use crate::Error;

const ANSWER: Duration = Duration::from_secs(20);

/// A new node's clock may say anything, and the cloud has told it no time yet: all that is certain is that no release of
/// this program is in the future.
#[derive(Debug)]
struct AtRelease;

impl CertTime for AtRelease {
    fn judge_at(&self, chain: tls::Validity, _wall: i64) -> i64 {
        let validity = Validity::from_seconds(chain.not_before, chain.not_after);
        edge_accepts_cloud(&[validity], RELEASED).map_or(RELEASED.as_second(), Timestamp::as_second)
    }
}

/// A signing request without names: the cloud writes those of the node the token is for.
///
/// # Errors
/// When it cannot be signed.
pub(crate) fn request(key: &KeyPair) -> Result<Vec<u8>, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let csr = params.serialize_request(key).map_err(Error::Request)?;
    Ok(csr.der().to_vec())
}

/// A channel that trusts nothing but a server certified by the pinned authority.
///
/// # Errors
/// When address or pin cannot be used.
pub(crate) fn connect(url: &str, pin: &str) -> Result<ActivationServiceClient<Client>, Error> {
    let try_connect = || -> Result<Client, Box<dyn std::error::Error + Send + Sync>> {
        let pin: Pin = pin.parse()?;
        let config = tls::client_config(&ServerTrust::Pin(pin), None, Some(Arc::new(AtRelease)))?;
        Ok(Connect::new(url.parse::<Endpoint>()?).tls(config).lazy()?)
    };
    let client = try_connect().map_err(|source| Error::Address {
        url: url.to_owned(),
        source,
    })?;
    Ok(ActivationServiceClient::new(client))
}

/// One attempt.
///
/// # Errors
/// What the cloud or the transport said.
pub(crate) async fn ask(
    client: &mut ActivationServiceClient<Client>,
    token: &str,
    csr: &[u8],
    mode: RunMode,
) -> Result<ActivateResponse, Status> {
    let mut request = tonic::Request::new(ActivateRequest {
        proof: Some(Proof::InstallToken(token.to_owned())),
        csr: csr.to_vec().into(),
        mode: mode.to_string(),
        ..ActivateRequest::default()
    });
    request.set_timeout(ANSWER);
    Ok(client.activate(request).await?.into_inner())
}
