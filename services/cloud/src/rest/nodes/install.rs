//! How a machine becomes a node: the command for a shell, and for machines without a network the parts of a bundle.

use axum::extract::{Path, RawQuery};
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::find;
use crate::install::kube::{KubeError, KubeOptions, SCRIPT};
use crate::install::{InstallError, InstallToken};
use crate::rest::error::{ApiError, Mistake};
use crate::rest::list::last_value;
use crate::rest::{Ctx, reply};
use crate::store::NodeRow;

impl From<InstallError> for ApiError {
    fn from(error: InstallError) -> Self {
        match error {
            InstallError::DataDir(_) => Self::invalid("path", error.to_string()),
            InstallError::Life => Self::invalid("tokenSeconds", error.to_string()),
            InstallError::Randomness(_) => Self::internal(&error),
            InstallError::Store(error) => error.into(),
        }
    }
}

impl From<KubeError> for ApiError {
    fn from(error: KubeError) -> Self {
        match error.parameter() {
            Some(parameter) => Self::invalid(parameter, error.to_string()),
            None => Self::internal(&error),
        }
    }
}

/// The install command.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(in crate::rest) struct InitView {
    /// For a shell on the new machine. Secret until it expires: it contains a token.
    cmd: String,
    /// When it stops working.
    #[serde(skip_serializing_if = "String::is_empty")]
    expires: String,
}

/// What a bundle is made of, besides images.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::rest) struct BundleView {
    /// The script that installs from a bundle.
    script: String,
    /// What it applies.
    manifests: String,
    /// The authority of this cloud, in PEM.
    ca: String,
    /// Install token. Secret until it expires.
    token: String,
    /// When the token stops working.
    expires: String,
}

/// A parameter of the query; empty when it is not given.
fn given(query: &str, key: &str) -> String {
    last_value(query, key).unwrap_or_default()
}

fn options(query: &str) -> KubeOptions {
    KubeOptions {
        class: given(query, "class"),
        registry: given(query, "registry"),
        pull_secret: given(query, "pullSecret"),
        kube_node: given(query, "kubeNode"),
        distribution: given(query, "distribution"),
    }
}

async fn token(ctx: &Ctx, node: &NodeRow, query: &str) -> Result<InstallToken, ApiError> {
    let life = given(query, "tokenSeconds");
    let life = (!life.is_empty()).then(|| {
        life.parse::<u32>()
            .map_err(|_| ApiError::invalid("tokenSeconds", format!("\"{life}\" is not a number")))
    });
    Ok(ctx.rest.install.token(node, life.transpose()?).await?)
}

/// A node runs the way it is described: that never changes.
fn check_mode(node: &NodeRow, query: &str) -> Result<(), ApiError> {
    let (mode, described) = (given(query, "mode"), &node.spec.node_mode);
    let wrong = match mode.as_str() {
        "" => return Ok(()),
        mode if mode == described => return Ok(()),
        "kube" | "native" => {
            let name = &node.name;
            format!(
                "node {name} is described with nodeMode {described}; leave mode out, or describe another node"
            )
        }
        other => format!("\"{other}\" is not one of kube, native"),
    };
    Err(ApiError::mistakes(vec![Mistake::new("mode", wrong)]))
}

pub(in crate::rest) async fn init(
    ctx: Ctx,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let query = query.unwrap_or_default();
    let node = find(&ctx, &name).await?;
    check_mode(&node, &query)?;
    let made = token(&ctx, &node, &query).await?;
    let cmd = if node.spec.node_mode == "native" {
        let path = last_value(&query, "path").filter(|path| !path.is_empty());
        let url = ctx.rest.kube.activate_url();
        let install = &ctx.rest.install;
        install.native_command(&made.token, url, path.as_deref())?
    } else {
        let options = options(&query);
        ctx.rest.kube.command(&node, &made.token, &options)?
    };
    Ok(reply(&InitView {
        cmd,
        expires: made.expires.to_string(),
    }))
}

pub(in crate::rest) async fn bundle(
    ctx: Ctx,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let query = query.unwrap_or_default();
    let node = find(&ctx, &name).await?;
    let manifests = ctx.rest.kube.manifests(&node, &options(&query))?;
    let made = token(&ctx, &node, &query).await?;
    Ok(reply(&BundleView {
        script: SCRIPT.to_owned(),
        manifests,
        ca: ctx.rest.kube.authority(),
        token: made.token,
        expires: made.expires.to_string(),
    }))
}
