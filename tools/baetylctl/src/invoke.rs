//! `invoke`: calls a function at the proxy of an edge node, over HTTP or gRPC.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use baetyl_proto::function::InvokeRequest;
use baetyl_proto::function::function_service_client::FunctionServiceClient;
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tonic::transport::{Channel, Endpoint, Uri};

/// Arguments of `invoke`.
#[derive(Args)]
pub(crate) struct InvokeArgs {
    /// `<service>` or `<service>/<function>`.
    function: String,
    /// What the function gets; `@FILE` reads a file, `-` standard input.
    #[arg(short, long, default_value = "")]
    data: String,
    /// The proxy: `http://HOST:50011`, or for gRPC `grpc://HOST:50012` or `unix:PATH` of its socket.
    #[arg(long, default_value = "http://127.0.0.1:50011")]
    address: String,
    /// File with an application token, for functions that want one.
    #[arg(long)]
    app_token_file: Option<PathBuf>,
}

/// Calls the function and writes its answer to standard output.
///
/// # Errors
/// What the proxy or the function said.
pub(crate) async fn run(args: InvokeArgs, _cloud_token: Option<&Path>) -> Result<()> {
    let payload = payload(&args.data)?;
    let token = match &args.app_token_file {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            Some(text.trim().to_owned())
        }
        None => None,
    };
    let answer = if args.address.starts_with("http://") {
        over_http(&args, payload, token).await?
    } else {
        over_grpc(&args, payload, token).await?
    };
    let mut out = std::io::stdout().lock();
    out.write_all(&answer)?;
    if !answer.ends_with(b"\n") {
        out.write_all(b"\n")?;
    }
    Ok(())
}

fn payload(data: &str) -> Result<Bytes> {
    if data == "-" {
        let mut bytes = Vec::new();
        std::io::stdin()
            .read_to_end(&mut bytes)
            .context("cannot read standard input")?;
        return Ok(bytes.into());
    }
    match data.strip_prefix('@') {
        Some(file) => Ok(std::fs::read(file)
            .with_context(|| format!("cannot read {file}"))?
            .into()),
        None => Ok(Bytes::copy_from_slice(data.as_bytes())),
    }
}

async fn over_http(args: &InvokeArgs, payload: Bytes, token: Option<String>) -> Result<Bytes> {
    let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .build_http::<Full<Bytes>>();
    let mut request = http::Request::post(format!(
        "{}/{}",
        args.address.trim_end_matches('/'),
        args.function.trim_matches('/')
    ));
    if let Some(token) = token {
        request = request.header(http::header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let response = client
        .request(request.body(Full::new(payload))?)
        .await
        .with_context(|| format!("the proxy at {} does not answer", args.address))?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if !status.is_success() {
        bail!("{status}: {}", String::from_utf8_lossy(&body));
    }
    Ok(body)
}

async fn over_grpc(args: &InvokeArgs, payload: Bytes, token: Option<String>) -> Result<Bytes> {
    let (service, function) = args
        .function
        .split_once('/')
        .unwrap_or((&args.function, ""));
    let channel = connect(&args.address)
        .await
        .with_context(|| format!("the proxy at {} does not answer", args.address))?;
    let mut request = tonic::Request::new(InvokeRequest {
        service: service.to_owned(),
        function: function.to_owned(),
        payload,
        metadata: std::collections::BTreeMap::new(),
    });
    if let Some(token) = token {
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {token}").parse()?);
    }
    let response = FunctionServiceClient::new(channel).invoke(request).await;
    let response =
        response.map_err(|status| anyhow::anyhow!("{:?}: {}", status.code(), status.message()))?;
    Ok(response.into_inner().payload)
}

async fn connect(address: &str) -> Result<Channel> {
    if let Some(path) = address.strip_prefix("unix:") {
        let path = PathBuf::from(path);
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move {
                Ok::<_, std::io::Error>(TokioIo::new(tokio::net::UnixStream::connect(path).await?))
            }
        });
        return Ok(Endpoint::from_static("http://localhost")
            .connect_with_connector(connector)
            .await?);
    }
    let Some(host) = address.strip_prefix("grpc://") else {
        bail!("{address} is no address; use http://HOST:PORT, grpc://HOST:PORT or unix:PATH");
    };
    Ok(Endpoint::from_shared(format!("http://{host}"))?
        .connect()
        .await?)
}
