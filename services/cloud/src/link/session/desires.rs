//! The way down: what the node shall run, and proof of what it says it holds.

use std::sync::Arc;

use baetyl_kit::error::chain;
use baetyl_model::desire::Header;
use baetyl_model::link::{CloudInput, Up as Heard};
use baetyl_model::{Digest, Generation};
use baetyl_proto::link::connect_response::Message as Down;
use baetyl_proto::shadow::SignedDesire;
use baetyl_proto::sign;
use tonic::Status;

use super::Session;
use super::wanted::Wanted;
use super::wire::{Incoming, unavailable};
use crate::desire;
use crate::link::admit;
use crate::store::Snapshot;

impl Session {
    /// The answer to PresentDesire. Only our own signature counts.
    pub(super) async fn take_presented(&mut self, signed: SignedDesire) -> Result<(), Status> {
        let key = self
            .deps
            .pki
            .desire_key(&self.node.namespace)
            .await
            .map_err(|error| unavailable(&error))?;
        let (header, genuine) =
            match sign::verify_desire(&[key.public_key()], Some(&self.node.uid), &signed) {
                Ok(desire) => (desire.header(), true),
                Err(error) => {
                    let message = format!(
                        "the node claims a desire that this cloud did not sign for it: {error}"
                    );
                    self.raise("DesireNotProved", message).await?;
                    let nothing = Digest::from_sha256([0; 32]);
                    (self.header(Generation(0), nothing), false)
                }
            };
        // With the newest rows, not those of the feed: a feed that lags is not a state that went back.
        let newest = self
            .deps
            .feed
            .current(&self.node.namespace)
            .await
            .map_err(|error| unavailable(&error))?;
        self.derive_at(&newest, true).await?;
        let incoming = Incoming::Presented(header.clone());
        self.tell(
            CloudInput::Received(Heard::Presented { header, genuine }),
            incoming,
        )
        .await
    }

    /// Derives what the node shall run at the newest revision of the feed and tells the machine if that is news.
    pub(super) async fn derive_wanted(&mut self) -> Result<(), Status> {
        let snapshot = Arc::clone(&self.feed.borrow_and_update());
        self.derive_at(&snapshot, false).await
    }

    /// `always`: also when the content is that of the last derivation, for its generation.
    pub(super) async fn derive_at(
        &mut self,
        snapshot: &Snapshot,
        always: bool,
    ) -> Result<(), Status> {
        let Some(node) = snapshot.nodes.get(&self.node.uid) else {
            return self.removed().await;
        };
        let Some(apps) = desire::select_apps(node, snapshot) else {
            return Ok(());
        };
        if !always
            && self
                .wanted
                .as_ref()
                .is_some_and(|wanted| wanted.has_content(node, &apps))
        {
            return Ok(());
        }
        let wanted = Wanted {
            node: Arc::clone(node),
            apps,
            generation: snapshot.revision.into(),
        };
        match wanted.derive(self.epoch) {
            Ok(desire) => {
                let header = desire.header();
                self.wanted = Some(wanted);
                self.derived = Some(desire);
                Box::pin(self.tell(CloudInput::Wanted(header), Incoming::None)).await
            }
            Err(error) => {
                tracing::error!(uid = %self.node.uid, error = %chain(&error), "no desire can be derived");
                self.raise("DesireUnderivable", error.to_string()).await
            }
        }
    }

    /// Hop 2.
    pub(super) async fn deliver(&mut self, header: &Header) -> Result<(), Status> {
        let Some(wanted) = &self.wanted else {
            return Ok(());
        };
        let fresh = self
            .derived
            .take()
            .filter(|desire| desire.header() == *header);
        let desire = fresh.or_else(|| wanted.derive(self.epoch).ok());
        let Some(desire) = desire.filter(|desire| desire.header() == *header) else {
            // Something newer is wanted by now, and the machine is told of it.
            return Ok(());
        };
        let apps = wanted.apps.clone();
        let key = self
            .deps
            .pki
            .desire_key(&self.node.namespace)
            .await
            .map_err(|error| unavailable(&error))?;
        // Known before it is sent: the node may fetch at once.
        self.registration.delivered(apps);
        self.outbox
            .push_back(Down::Desire(desire::deliver_desire(&key, desire)));
        Ok(())
    }

    /// The node is not in the namespace any more.
    pub(super) async fn removed(&mut self) -> Result<(), Status> {
        let tombstone = self
            .deps
            .store
            .deleted_node(&self.node.namespace, &self.node.uid)
            .await;
        if tombstone.map_err(admit::unavailable)?.is_none() {
            return Err(Status::not_found(
                "this cloud does not know the node any more",
            ));
        }
        tracing::info!(namespace = %self.node.namespace, uid = %self.node.uid, "node removed");
        self.deps
            .reports
            .forget(&self.node.namespace, &self.node.uid);
        self.ended = true;
        Box::pin(self.tell(CloudInput::Deleted, Incoming::None)).await
    }

    fn header(&self, generation: Generation, digest: Digest) -> Header {
        Header {
            node_uid: self.node.uid.clone(),
            epoch: self.epoch,
            generation,
            digest,
        }
    }
}
