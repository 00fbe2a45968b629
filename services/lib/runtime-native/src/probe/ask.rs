//! One question and its answer.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Uri, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::exec::Environment;

/// A status from 200 to 399 is good. The body is not read.
pub(super) async fn http(
    host: &str,
    port: u16,
    uri: &Uri,
    headers: &[(HeaderName, HeaderValue)],
) -> Result<(), String> {
    let stream = TcpStream::connect((host, port))
        .await
        .map_err(|error| format!("cannot connect to {host}:{port}: {error}"))?;
    let (mut client, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(|error| format!("{host}:{port} does not speak HTTP: {error}"))?;
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = uri.clone();
    let own = request.headers_mut();
    if let Ok(value) = format!("{host}:{port}").parse() {
        own.insert(header::HOST, value);
    }
    own.insert(
        header::USER_AGENT,
        HeaderValue::from_static("baetyl-probe/1"),
    );
    own.insert(header::CONNECTION, HeaderValue::from_static("close"));
    for (name, value) in headers {
        own.insert(name, value.clone());
    }
    let response = tokio::select! {
        response = client.send_request(request) => response,
        // The connection is driven until the answer is there; its own end before that is an answer too.
        error = drive(connection) => return Err(format!("http://{host}:{port}{uri}: {error}")),
    };
    let status = response
        .map_err(|error| format!("http://{host}:{port}{uri}: {error}"))?
        .status();
    if (200..400).contains(&status.as_u16()) {
        Ok(())
    } else {
        Err(format!("http://{host}:{port}{uri} answered {status}"))
    }
}

async fn drive(connection: impl Future<Output = hyper::Result<()>>) -> String {
    match connection.await {
        // The response may still be on its way to whoever asked: let that side see it.
        Ok(()) => std::future::pending().await,
        Err(error) => error.to_string(),
    }
}

/// A connection that opens is good.
pub(super) async fn tcp(host: &str, port: u16) -> Result<(), String> {
    TcpStream::connect((host, port))
        .await
        .map(|_| ())
        .map_err(|error| format!("cannot connect to {host}:{port}: {error}"))
}

/// Exit code 0 is good. What it prints is not kept.
pub(super) async fn exec(environment: &Environment, command: &[String]) -> Result<(), String> {
    let status = environment
        .run_quietly(command)
        .await
        .map_err(|error| error.to_string())?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{} ended with {status}", command.join(" ")))
    }
}
