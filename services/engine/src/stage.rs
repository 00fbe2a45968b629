//! Hop 5: makes one release complete on this node: bodies in hand, objects in engine's own directory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use baetyl_model::desire::{DesiredApp, ObjectRef, ResourceRef};
use baetyl_model::update::Limits;
use baetyl_model::{Digest, Version};
use baetyl_proto::digest;
use tokio::sync::watch;

use crate::bodies::Bodies;
use crate::context::Context;
use crate::objects::ObjectError;
use crate::ports::{Content as _, ContentError, Ports, Progress, Runtime as _};
use crate::shape::Shape;
use crate::store::Body;

/// A complete release.
#[derive(Debug, Clone)]
pub(crate) struct Staged {
    /// Bodies that are not in the store yet.
    pub(crate) fresh: Vec<Body>,
    /// What is known of it now.
    pub(crate) shape: Shape,
    /// Deadlines that follow from it.
    pub(crate) limits: Limits,
}

/// How far staging is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Staging {
    /// What sync says.
    pub(crate) progress: Progress,
    /// What the application's body says, which comes before its large files.
    pub(crate) shape: Option<(Version, Shape)>,
}

/// Makes a release complete, after a pause. Drop it to give up: what is complete stays.
pub(crate) async fn stage<P: Ports>(
    ctx: Arc<Context<P>>,
    desired: DesiredApp,
    after: Duration,
    staging: watch::Sender<Staging>,
) -> Result<Staged, ContentError> {
    tokio::time::sleep(after).await;
    let mut held = stored_bodies(&ctx, &desired).await?;
    let resources: Vec<ResourceRef> = desired
        .references()
        .into_iter()
        .filter(|reference| !held.contains_key(&reference.digest))
        .collect();
    let objects: Vec<ObjectRef> = desired
        .objects
        .iter()
        .filter(|object| !P::Runtime::TAKES_OBJECTS || !ctx.objects.has(object))
        .cloned()
        .collect();
    let mut fresh = Vec::new();
    if !resources.is_empty() || !objects.is_empty() {
        ctx.housekeeping.declare().await?;
        if !objects.is_empty() {
            learn_shape(&ctx, &desired, &held, &staging).await?;
        }
        let tell = move |now: Progress| staging.send_modify(|staging| staging.progress = now);
        ctx.content
            .stage(resources.clone(), objects.clone(), tell)
            .await?;
        for reference in resources {
            let bytes = read(&ctx, &reference).await?;
            held.insert(reference.digest, bytes.clone());
            fresh.push(Body {
                kind: reference.kind,
                digest: reference.digest,
                bytes,
            });
        }
        if P::Runtime::TAKES_OBJECTS {
            for object in objects {
                take(&ctx, object).await?;
            }
        }
    }
    let bodies = Bodies::parse(&desired, |digest| held.get(digest).cloned())
        .map_err(|error| ContentError::Never(baetyl_kit::error::chain(&error)))?;
    let shape = Shape::of(&bodies.app);
    let limits = shape.limits(&ctx.config.update);
    tracing::info!(event = "desire.staged", app = %desired.app.name, version = %desired.app.version,
        fetched = fresh.len(), "everything of the version is on this node");
    Ok(Staged {
        fresh,
        shape,
        limits,
    })
}

/// What an application consists of is known long before its large files are there: others are told of its functions.
async fn learn_shape<P: Ports>(
    ctx: &Context<P>,
    desired: &DesiredApp,
    held: &BTreeMap<Digest, Vec<u8>>,
    staging: &watch::Sender<Staging>,
) -> Result<(), ContentError> {
    let references = desired.references();
    let Some(reference) = references
        .into_iter()
        .find(|reference| reference.digest == desired.app.digest)
    else {
        return Ok(());
    };
    let body = match held.get(&reference.digest) {
        Some(body) => body.clone(),
        None => {
            let wanted = vec![reference.clone()];
            ctx.content.stage(wanted, Vec::new(), |_| ()).await?;
            read(ctx, &reference).await?
        }
    };
    // A body that cannot be read is refused with all others.
    if let Some(shape) = Shape::of_body(&body) {
        let version = desired.app.version.clone();
        staging.send_modify(|staging| staging.shape = Some((version, shape)));
    }
    Ok(())
}

/// The bodies of a release that are in the store.
pub(crate) async fn stored_bodies<P: Ports>(
    ctx: &Arc<Context<P>>,
    desired: &DesiredApp,
) -> Result<BTreeMap<Digest, Vec<u8>>, ContentError> {
    let (store, references) = (ctx.store.clone(), desired.references());
    let read = tokio::task::spawn_blocking(move || {
        let mut held = BTreeMap::new();
        for reference in references {
            if let Some(bytes) = store.body(&reference.digest)? {
                held.insert(reference.digest, bytes);
            }
        }
        Ok(held)
    });
    match read.await {
        Ok(Ok(held)) => Ok(held),
        Ok(Err(error)) => {
            let error: crate::store::StoreError = error;
            Err(ContentError::Later(baetyl_kit::error::chain(&error)))
        }
        Err(error) => Err(ContentError::Later(error.to_string())),
    }
}

/// A body from sync, checked again: what runs is what the desire names.
async fn read<P: Ports>(
    ctx: &Context<P>,
    reference: &ResourceRef,
) -> Result<Vec<u8>, ContentError> {
    let bytes = ctx.content.read_resource(&reference.digest).await?;
    if digest::of(&bytes) != reference.digest || bytes.len() as u64 != reference.size {
        return Err(ContentError::Later(format!(
            "{reference} was handed out with other content than its digest says"
        )));
    }
    Ok(bytes)
}

async fn take<P: Ports>(ctx: &Context<P>, object: ObjectRef) -> Result<(), ContentError> {
    let spool = ctx
        .objects
        .spool(&object.digest)
        .map_err(|error| ContentError::Later(error.to_string()))?;
    let path = ctx.content.open_object(&object.digest, &spool).await?;
    let objects = ctx.objects.clone();
    let turn = objects.turn().await;
    let taken = tokio::task::spawn_blocking(move || {
        let taken = objects.take(&object, &path);
        drop(turn);
        // Absent unless sync had to hand out bytes.
        let _ = std::fs::remove_file(&spool);
        taken
    });
    match taken.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error @ ObjectError::Archive { .. })) => {
            Err(ContentError::Never(baetyl_kit::error::chain(&error)))
        }
        Ok(Err(error)) => Err(ContentError::Later(baetyl_kit::error::chain(&error))),
        Err(error) => Err(ContentError::Later(error.to_string())),
    }
}
