//! One simulated node: enrolment, then a link that acknowledges what comes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use baetyl_kit::grpc::{Connect, Endpoint};
use baetyl_kit::tls::{self, Pin, Roots, ServerTrust};
use baetyl_proto::activation::activate_request::Proof;
use baetyl_proto::activation::activation_service_client::ActivationServiceClient;
use baetyl_proto::activation::{ActivateRequest, ActivateResponse};
use baetyl_proto::link::connect_request::Message as Up;
use baetyl_proto::link::connect_response::Message as Down;
use baetyl_proto::link::link_service_client::LinkServiceClient;
use baetyl_proto::link::{ConnectRequest, DesireAck, Heartbeat, Hello};
use baetyl_proto::meta::ProtocolRange;
use baetyl_proto::shadow::{Desire, DesireHeader, SignedDesire};
use prost::Message as _;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use crate::cloud::Cloud;

/// What all nodes count together.
#[derive(Default)]
pub(crate) struct Counters {
    /// Links that were welcomed.
    pub(crate) online: AtomicUsize,
    /// Nodes that hold the wished version.
    pub(crate) reached: AtomicUsize,
}

/// What activation gave.
pub(crate) struct Identity {
    key: KeyPair,
    answer: ActivateResponse,
}

/// Creates the node and activates it with a key of its own.
pub(crate) async fn enrol(cloud: &Cloud, name: &str) -> Result<Identity> {
    let install = cloud.describe(name).await?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let csr = params.serialize_request(&key)?.der().to_vec();
    let pin: Pin = install.pin.parse()?;
    let tls = tls::client_config(&ServerTrust::Pin(pin), None, None)?;
    let channel = Connect::new(install.url.parse::<Endpoint>()?)
        .tls(tls)
        .lazy()?;
    let request = ActivateRequest {
        proof: Some(Proof::InstallToken(install.token)),
        csr: csr.into(),
        mode: "native".to_owned(),
        ..ActivateRequest::default()
    };
    let answer = ActivationServiceClient::new(channel)
        .activate(request)
        .await;
    let answer = answer
        .with_context(|| format!("activation of {name}"))?
        .into_inner();
    Ok(Identity { key, answer })
}

/// Keeps the link open until it ends.
pub(crate) async fn live(
    identity: Identity,
    counters: Arc<Counters>,
    wished: watch::Receiver<String>,
) -> Result<()> {
    let own = |der: &bytes::Bytes| CertificateDer::from(der.to_vec());
    let chain = identity.answer.certificate_chain.iter().map(own).collect();
    let authorities: Vec<_> = identity
        .answer
        .trusted_authorities
        .iter()
        .map(own)
        .collect();
    let key = PrivateKeyDer::try_from(identity.key.serialize_der()).map_err(anyhow::Error::msg)?;
    let trust = ServerTrust::Roots(Roots::new(&authorities)?);
    let tls = tls::client_config(&trust, Some(tls::Identity::new(chain, key)), None)?;
    let address = identity
        .answer
        .link_addresses
        .first()
        .context("no link address")?;
    let channel = Connect::new(address.parse::<Endpoint>()?).tls(tls).lazy()?;
    let (up, outgoing) = mpsc::channel(4);
    let hello = Hello {
        protocol: Some(ProtocolRange { min: 1, max: 1 }),
        ..Hello::default()
    };
    up.send(request(Up::Hello(hello))).await?;
    let mut down = LinkServiceClient::new(channel)
        .connect(ReceiverStream::new(outgoing))
        .await?
        .into_inner();
    let mut period = Duration::from_secs(10);
    let mut waiting = Waiting {
        counters,
        wished,
        held: BTreeSet::new(),
        counted: String::new(),
    };
    loop {
        tokio::select! {
            message = down.message() => match message?.and_then(|message| message.message) {
                Some(Down::Welcome(welcome)) => {
                    period = Duration::from_millis(u64::from(welcome.heartbeat_period_ms.max(100)));
                    waiting.counters.online.fetch_add(1, Ordering::Relaxed);
                }
                Some(Down::Desire(desire)) => {
                    let header = waiting.hold(&desire)?;
                    let ack = DesireAck { header: Some(header), ..DesireAck::default() };
                    up.send(request(Up::DesireAck(ack))).await?;
                }
                Some(_) => {}
                None => bail!("the cloud ended the link"),
            },
            changed = waiting.wished.changed() => {
                changed?;
                waiting.count();
            }
            () = tokio::time::sleep(period) => up.send(request(Up::Heartbeat(Heartbeat {}))).await?,
        }
    }
}

fn request(message: Up) -> ConnectRequest {
    ConnectRequest {
        message: Some(message),
    }
}

/// Counts this node once for each wished version it holds, whichever comes first, the wish or the desire.
struct Waiting {
    counters: Arc<Counters>,
    wished: watch::Receiver<String>,
    held: BTreeSet<String>,
    counted: String,
}

impl Waiting {
    fn hold(&mut self, signed: &SignedDesire) -> Result<DesireHeader> {
        let desire = Desire::decode(signed.payload.clone())?;
        let versions = desire
            .apps
            .iter()
            .filter_map(|app| app.app.as_ref())
            .map(|app| app.version.clone());
        self.held = versions.collect();
        self.count();
        Ok(DesireHeader {
            node_uid: desire.node_uid,
            epoch: desire.epoch,
            generation: desire.generation,
            digest: desire.digest,
        })
    }

    fn count(&mut self) {
        let wished = self.wished.borrow().clone();
        if wished != self.counted && self.held.contains(&wished) {
            self.counted = wished;
            self.counters.reached.fetch_add(1, Ordering::Relaxed);
        }
    }
}
