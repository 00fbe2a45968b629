//! `invoke`: calls a function at the proxy of an edge node, over HTTP or gRPC.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use baetyl_proto::function::InvokeRequest;
use baetyl_proto::function::function_service_client::FunctionServiceClient;
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::client;

/// How long is waited without `--timeout`: what the proxy gives at most to a function that says nothing of its own.
const PATIENCE: Duration = Duration::from_secs(300);
/// The proxy is told `--timeout`, and shall have the time to say which function was too slow.
const GRACE: Duration = Duration::from_secs(2);
/// Header of the proxy: milliseconds the caller waits.
const TIMEOUT_HEADER: &str = "x-baetyl-timeout-ms";

/// Arguments of `invoke`.
#[derive(Args)]
pub(crate) struct InvokeArgs {
    /// `<service>` or `<service>/<function>`.
    function: String,
    /// What the function gets; `@FILE` reads a file, `-` standard input.
    #[arg(short, long, default_value = "")]
    data: String,
    /// The proxy: `http://HOST:50011` (`https://` when it speaks TLS, see --ca-file), or for gRPC `grpc://HOST:50012` or
    /// `unix:PATH` of its socket.
    #[arg(long, default_value = "http://127.0.0.1:50011")]
    address: String,
    /// File with an application token, for functions that want one.
    #[arg(long)]
    app_token_file: Option<PathBuf>,
    /// Seconds the function may take; without it, what the function or the proxy says.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    timeout: Option<u32>,
}

impl InvokeArgs {
    /// What the function may take, if that was said.
    fn asked(&self) -> Option<Duration> {
        self.timeout
            .map(|seconds| Duration::from_secs(seconds.into()))
    }
}

/// Calls the function and writes its answer to standard output.
///
/// # Errors
/// What the proxy or the function said.
pub(crate) async fn run(args: InvokeArgs, ca_file: Option<&Path>) -> Result<()> {
    let payload = payload(&args.data)?;
    let token = match &args.app_token_file {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            Some(text.trim().to_owned())
        }
        None => None,
    };
    let answer = answer(&args, payload, token, ca_file).await?;
    let mut out = std::io::stdout().lock();
    out.write_all(&answer)?;
    if !answer.ends_with(b"\n") {
        out.write_all(b"\n")?;
    }
    Ok(())
}

async fn answer(
    args: &InvokeArgs,
    payload: Bytes,
    token: Option<String>,
    ca_file: Option<&Path>,
) -> Result<Bytes> {
    let patience = args.asked().map_or(PATIENCE, |asked| asked + GRACE);
    let is_http = ["http://", "https://"]
        .iter()
        .any(|scheme| args.address.starts_with(scheme));
    let answered = if is_http {
        tokio::time::timeout(patience, over_http(args, payload, token, ca_file)).await
    } else {
        tokio::time::timeout(patience, over_grpc(args, payload, token)).await
    };
    answered.with_context(|| {
        format!(
            "the proxy at {} did not answer within {patience:?}",
            args.address
        )
    })?
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

async fn over_http(
    args: &InvokeArgs,
    payload: Bytes,
    token: Option<String>,
    ca_file: Option<&Path>,
) -> Result<Bytes> {
    let client = client::https(ca_file)?;
    let mut request = http::Request::post(format!(
        "{}/{}",
        args.address.trim_end_matches('/'),
        args.function.trim_matches('/')
    ));
    if let Some(token) = token {
        request = request.header(http::header::AUTHORIZATION, format!("Bearer {token}"));
    }
    if let Some(asked) = args.asked() {
        request = request.header(TIMEOUT_HEADER, asked.as_millis().to_string());
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
    if let Some(asked) = args.asked() {
        request.set_timeout(asked);
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

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: InvokeArgs,
    }

    /// Time passes at once while nothing else happens.
    #[tokio::test(start_paused = true)]
    async fn a_proxy_that_says_nothing_is_given_up_over_http_and_grpc() {
        let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let host = silent.local_addr().unwrap();
        for (address, words) in [
            (format!("http://{host}"), "did not answer within 5s"),
            // The gRPC client watches the time the proxy is told.
            (format!("grpc://{host}"), "Timeout expired"),
        ] {
            let cli = Cli::parse_from(["x", "greet", "--timeout", "3", "--address", &address]);
            let error = answer(&cli.args, Bytes::new(), None, None)
                .await
                .unwrap_err();
            assert!(error.to_string().contains(words), "{address}: {error:#}");
        }
    }
}
