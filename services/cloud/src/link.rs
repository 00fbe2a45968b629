//! The link: one stream per node over mutual TLS, and what nodes fetch over it.
//!
//! [`serve`] puts it on a port. A node is who its certificate says (`admit`); its stream is a `session` around the
//! state machine of [`baetyl_model::link`]; what it may fetch is decided in `fetch`. The rows it all rests on come from
//! [`crate::desire::DesireFeed`]; what nodes say goes to [`crate::report::Reports`].

use baetyl_kit::Kit;
use baetyl_kit::grpc::Server;
use baetyl_kit::listen::Listen;
use baetyl_kit::serve::ServeError;

mod admit;
mod fetch;
mod registry;
mod renew;
mod service;
mod session;
mod small;

#[cfg(test)]
mod tests;

pub use registry::{CommandError, Links};

use crate::desire::DesireFeed;
use crate::objects::Objects;
use crate::pki::{Pki, PkiError};
use crate::report::Reports;
use crate::store::Store;

/// What this cloud can do beyond the protocol number.
const FEATURES: [&str; 0] = [];

/// What the link works with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LinkDeps {
    /// Rows.
    pub store: Store,
    /// Keys.
    pub pki: Pki,
    /// Rows as they change.
    pub feed: DesireFeed,
    /// Where reports go.
    pub reports: Reports,
    /// Open streams.
    pub links: Links,
    /// Bytes of uploaded files.
    pub objects: Objects,
}

/// Why the link is not served.
#[derive(Debug, thiserror::Error)]
pub enum LinkServeError {
    /// It could not bind.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// TLS could not be set up.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// Serves the link over mutual TLS. Returns where.
///
/// # Errors
/// When it cannot bind.
pub async fn serve(kit: &Kit, listen: &Listen, deps: LinkDeps) -> Result<Listen, LinkServeError> {
    let server = Server::new(kit, "link")
        .tls(deps.pki.link_tls())
        .authorize(admit::authorize(deps.pki.clone()))
        .reflection(baetyl_proto::DESCRIPTORS)
        .add_service(small::LinkServer::new(service::Service(deps)));
    Ok(server.serve(listen).await?)
}
