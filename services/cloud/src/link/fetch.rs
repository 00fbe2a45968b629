//! What a node may fetch: exactly what its own current desire, or the one it was sent last, references.

use std::collections::HashMap;
use std::sync::Arc;

use baetyl_kit::error::chain;
use baetyl_kit::grpc::details;
use baetyl_model::{Digest, Kind, Namespace, Revision};
use baetyl_proto::digest;
use baetyl_proto::link::{FetchObjectResponse, FetchResourcesResponse};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tonic::Status;

use super::LinkDeps;
use crate::desire::{self, FeedError};
use crate::pki::NodeIdentity;
use crate::store::{AppRow, VersionRow};

/// Most digests in one call, as the contract says.
const MAX_DIGESTS: usize = 1000;

/// Bytes in one message: large enough that framing does not count, small enough that a slow node costs little memory.
const CHUNK: usize = 64 * 1024;

/// One version of one resource.
#[derive(Clone, Debug)]
struct Body {
    kind: Kind,
    name: String,
    version: Revision,
    digest: Digest,
}

/// What a node may fetch.
struct Allowed {
    /// Everything these applications reference.
    apps: Vec<Arc<AppRow>>,
    /// Also what the same resources were up to this revision: a node in mode local goes on with what it acknowledged,
    /// and must be able to fetch it again.
    until: Option<Revision>,
}

async fn allowed(deps: &LinkDeps, node: &NodeIdentity) -> Result<Allowed, Status> {
    let snapshot = deps
        .feed
        .current(&node.namespace)
        .await
        .map_err(|error| unavailable(&error))?;
    let mut allowed = Allowed {
        apps: deps.links.delivered(&node.namespace, &node.uid),
        until: None,
    };
    let Some(row) = snapshot.nodes.get(&node.uid) else {
        return Ok(allowed);
    };
    allowed.apps.extend(desire::selected_apps(row, &snapshot));
    if desire::is_local(row) {
        let report = deps.reports.report(&node.namespace, &node.uid).await;
        let acknowledged = report.map_err(super::admit::unavailable)?.summary;
        allowed.until = acknowledged
            .acknowledged
            .map(|header| Revision(header.generation.get()));
    }
    Ok(allowed)
}

/// An earlier version of something the node may fetch.
async fn earlier(
    deps: &LinkDeps,
    namespace: &Namespace,
    allowed: &Allowed,
    digest: &Digest,
) -> Result<Option<Body>, Status> {
    let Some(until) = allowed.until else {
        return Ok(None);
    };
    let versions = deps
        .store
        .versions_by_digest(namespace, digest, until)
        .await
        .map_err(super::admit::unavailable)?;
    let is_named = |row: &VersionRow| {
        let mut bodies = allowed.apps.iter().flat_map(|app| bodies(app));
        bodies.any(|(_, body)| body.kind == row.kind && body.name == row.name)
    };
    Ok(versions.into_iter().find(is_named).map(|row| Body {
        kind: row.kind,
        name: row.name,
        version: row.version,
        digest: row.digest,
    }))
}

fn unavailable(error: &FeedError) -> Status {
    tracing::error!(error = %chain(error), "the link cannot read what a node may fetch");
    Status::unavailable("the cloud cannot read its database at the moment; try again")
}

fn parse(digest: &str) -> Result<Digest, Status> {
    digest
        .parse()
        .map_err(|error| Status::invalid_argument(format!("{error}")))
}

fn denied(digest: &Digest) -> Status {
    Status::permission_denied(format!(
        "{digest} is not referenced by the node's own desire"
    ))
}

fn missing(digest: &Digest) -> Status {
    Status::not_found(format!("object {digest} is not in this cloud's store"))
}

/// The bodies of these digests, in this order. All of them are allowed, or nothing is sent.
pub(super) async fn resources(
    deps: &LinkDeps,
    node: NodeIdentity,
    digests: &[String],
) -> Result<impl Stream<Item = Result<FetchResourcesResponse, Status>> + Send + use<>, Status> {
    if digests.len() > MAX_DIGESTS {
        return Err(details::invalid(
            "digests",
            format!("at most {MAX_DIGESTS} digests a call"),
        ));
    }
    let allowed = allowed(deps, &node).await?;
    let by_digest: HashMap<Digest, Body> =
        allowed.apps.iter().flat_map(|app| bodies(app)).collect();
    let mut wanted = Vec::with_capacity(digests.len());
    for digest in digests {
        let digest = parse(digest)?;
        let body = match by_digest.get(&digest).cloned() {
            Some(body) => Some(body),
            None => earlier(deps, &node.namespace, &allowed, &digest).await?,
        };
        wanted.push(body.ok_or_else(|| denied(&digest))?);
    }
    let deps = deps.clone();
    Ok(stream::iter(wanted)
        .then(move |body| read(deps.clone(), node.namespace.clone(), body))
        .flat_map(chunks))
}

fn bodies(app: &AppRow) -> impl Iterator<Item = (Digest, Body)> + '_ {
    let own = Body {
        kind: Kind::Application,
        name: app.name.clone(),
        version: app.version,
        digest: app.digest,
    };
    let referenced = app.resources.iter().map(|row| Body {
        kind: row.kind,
        name: row.name.clone(),
        version: row.version,
        digest: row.digest,
    });
    std::iter::once(own)
        .chain(referenced)
        .map(|body| (body.digest, body))
}

/// A body as it was written, a secret's decrypted; its digest is checked once more.
async fn read(deps: LinkDeps, namespace: Namespace, body: Body) -> Result<(Digest, Bytes), Status> {
    let Body {
        kind,
        name,
        version,
        digest,
    } = body;
    let found = deps
        .store
        .version(&namespace, kind, &name, version)
        .await
        .map_err(super::admit::unavailable)?;
    let found = found.ok_or_else(|| {
        Status::not_found(format!(
            "version {version} of {kind} {name} does not exist any more ({digest})"
        ))
    })?;
    if digest::of(&found.body) != digest {
        tracing::error!(%namespace, %kind, name, %version, "a stored body does not have its digest");
        return Err(Status::data_loss(format!(
            "version {version} of {kind} {name} is damaged at the cloud"
        )));
    }
    Ok((digest, found.body.into()))
}

fn chunks(
    body: Result<(Digest, Bytes), Status>,
) -> impl Stream<Item = Result<FetchResourcesResponse, Status>> + Send {
    let parts = match body {
        Err(status) => vec![Err(status)],
        Ok((digest, bytes)) => {
            let count = bytes.len().div_ceil(CHUNK).max(1);
            let part = |at: usize| FetchResourcesResponse {
                digest: digest.to_string(),
                chunk: bytes.slice(at * CHUNK..bytes.len().min((at + 1) * CHUNK)),
                last: at + 1 == count,
            };
            (0..count).map(|at| Ok(part(at))).collect()
        }
    };
    stream::iter(parts)
}

/// Whether an object of this digest was pinned from an upload of the namespace; none when no application names it.
fn is_pinned(apps: &[Arc<AppRow>], digest: &Digest) -> Option<bool> {
    let mut found = None;
    for (_, _, object) in apps.iter().flat_map(|app| &app.objects) {
        if object.digest == *digest {
            found = Some(found.unwrap_or(false) || object.url.is_empty());
        }
    }
    found
}

/// The bytes of an object from an offset.
pub(super) async fn object(
    deps: &LinkDeps,
    node: &NodeIdentity,
    digest: &str,
    offset: u64,
) -> Result<impl Stream<Item = Result<FetchObjectResponse, Status>> + Send + use<>, Status> {
    let digest = parse(digest)?;
    let allowed = allowed(deps, node).await?;
    let Some(is_pinned) = is_pinned(&allowed.apps, &digest) else {
        return Err(denied(&digest));
    };
    // With a url the node fetches it there; but the same bytes may have been uploaded, too. The directory is of all
    // tenants: those of another one are not to be had by naming their digest.
    if !is_pinned
        && !deps
            .store
            .has_object_digest(&node.namespace, &digest)
            .await
            .map_err(super::admit::unavailable)?
    {
        return Err(missing(&digest));
    }
    let path = deps.objects.path(&digest);
    let mut file = File::open(&path)
        .await
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => missing(&digest),
            _ => broken(&digest, &error),
        })?;
    let total = file
        .metadata()
        .await
        .map_err(|error| broken(&digest, &error))?
        .len();
    if offset > total {
        return Err(Status::out_of_range(format!(
            "object {digest} has {total} bytes, {offset} were skipped"
        )));
    }
    file.seek(std::io::SeekFrom::Start(offset))
        .await
        .map_err(|error| broken(&digest, &error))?;
    let state = Some((file, Some(total)));
    Ok(stream::unfold(state, move |state| async move {
        let (mut file, total) = state?;
        let first = total.is_some();
        match next_chunk(&mut file).await {
            Ok(chunk) if chunk.is_empty() && !first => None,
            Ok(chunk) => {
                let message = FetchObjectResponse {
                    chunk,
                    total_size: total.unwrap_or(0),
                };
                Some((Ok(message), Some((file, None))))
            }
            Err(error) => Some((Err(broken(&digest, &error)), None)),
        }
    }))
}

async fn next_chunk(file: &mut File) -> std::io::Result<Bytes> {
    let mut chunk = bytes::BytesMut::with_capacity(CHUNK);
    while chunk.len() < CHUNK && file.read_buf(&mut chunk).await? > 0 {}
    Ok(chunk.freeze())
}

fn broken(digest: &Digest, error: &std::io::Error) -> Status {
    tracing::error!(%digest, %error, "cannot read an object");
    Status::unavailable(format!(
        "object {digest} cannot be read at the moment; try again"
    ))
}
