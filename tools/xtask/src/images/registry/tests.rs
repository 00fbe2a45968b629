//! A real registry where the machine has one, and a made one for what a real one would need servers for.

use std::fs;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse as _;
use http::header::HOST;

use super::super::served::{PROGRAM, Served};
use super::super::tests::{built, fake_programs};
use super::super::{layout, run};
use super::*;

/// Whether the machine has a registry; in CI it has to.
fn has_registry() -> bool {
    let there = run::has(PROGRAM);
    assert!(
        there || std::env::var_os("BAETYL_TEST_NO_SKIP").is_none(),
        "{PROGRAM} is not installed"
    );
    if !there {
        eprintln!("skipped: pushing to a real registry; to run it: apt-get install {PROGRAM}");
    }
    there
}

async fn push_and_pull(registry: &Registry) {
    let programs = fake_programs();
    for image in built(programs.path()).iter().take(2) {
        registry.push(image, "1.2.3").await.unwrap();
        // Again: what is there is not sent a second time, and nothing changes.
        registry.push(image, "1.2.3").await.unwrap();
        let (top, content) = registry.pull(&image.name, "1.2.3").await.unwrap();
        assert_eq!(top.digest, image.index.digest);
        assert!(
            content == image.content,
            "{} came back different",
            image.name
        );
        assert_eq!(layout::check(&content, &top).unwrap().len(), 3);
    }
    let missing = registry.pull("baetyl-nothing", "1").await.unwrap_err();
    assert!(missing.to_string().contains("404"), "{missing:#}");
}

#[tokio::test]
async fn images_come_back_from_a_real_registry_as_they_went() {
    if !has_registry() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(dir.path(), "", "").await.unwrap();
    for path in ["", "/team/edge"] {
        let address = Address::parse(&format!("{}{path}", served.address), false).unwrap();
        push_and_pull(&Registry::new(address, None).unwrap()).await;
    }
}

#[tokio::test]
async fn a_real_registry_with_tls_and_a_password_is_used_with_both_and_refused_without() {
    if !has_registry() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(path("crt.pem"), made.cert.pem()).unwrap();
    fs::write(path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    // The password is "pwd", as bcrypt.
    fs::write(path("users"), format!("me:{BCRYPT}\n")).unwrap();
    let tls = format!(
        "  tls: {{certificate: {:?}, key: {:?}}}\n",
        path("crt.pem"),
        path("key.pem")
    );
    let auth = format!(
        "auth: {{htpasswd: {{realm: r, path: {:?}}}}}\n",
        path("users")
    );
    let served = Served::start(dir.path(), &tls, &auth).await.unwrap();
    let name = served.address.replace("127.0.0.1", "https://localhost");
    let address = Address::parse(&name, false).unwrap();

    let unknown = Registry::new(address.clone(), None).unwrap();
    let error = unknown.pull("x", "1").await.unwrap_err();
    assert!(format!("{error:#}").contains("cannot reach"), "{error:#}");

    let mut known = Registry::new(address, Some(&path("crt.pem"))).unwrap();
    known.credentials = None;
    let error = known.pull("x", "1").await.unwrap_err();
    assert!(format!("{error:#}").contains("docker login"), "{error:#}");

    known.credentials = Some(Credentials::made("bWU6cHdk"));
    push_and_pull(&known).await;
}

const BCRYPT: &str = "$2b$05$abcdefghijklmnopqrstuuFMuuBkQrGrwRDUZ30QUNSIGd5YWq3IC";

/// A registry that wants a token from beside itself, and a place for tokens that wants a password.
async fn made(
    State(base): State<Arc<str>>,
    request: axum::extract::Request,
) -> axum::response::Response {
    let header = |name| {
        let value = request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    assert!(!header(HOST).is_empty());
    let uri = request.uri().to_string();
    if let Some(query) = uri.strip_prefix("/token?") {
        let fits = header(AUTHORIZATION) == "Basic bWU6cHdk"
            && query == "service=made&scope=repository:x:pull";
        return match fits {
            true => r#"{"token":"t1"}"#.into_response(),
            false => StatusCode::FORBIDDEN.into_response(),
        };
    }
    if header(AUTHORIZATION) != "Bearer t1" {
        let challenge =
            format!(r#"Bearer realm="{base}/token",service="made",scope="repository:x:pull""#);
        return (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, challenge)]).into_response();
    }
    uri.into_response()
}

#[tokio::test]
async fn a_token_is_fetched_where_the_registry_says() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let base: Arc<str> = format!("http://{address}").into();
    let router = Router::new().fallback(made).with_state(base);
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let mut registry = Registry::new(Address::parse(&address, false).unwrap(), None).unwrap();
    registry.credentials = None;
    let error = registry.get_manifest("x", "1").await.unwrap_err();
    assert!(error.to_string().contains("403"), "{error:#}");
    registry.credentials = Some(Credentials::made("bWU6cHdk"));
    let answer = registry.get_manifest("x", "1").await.unwrap();
    assert_eq!(&*answer, b"/v2/x/manifests/1");
    server.abort();
}

#[test]
fn plain_http_is_for_what_is_near() {
    let plain = |text, insecure| Address::parse(text, insecure).map(|address| address.plain);
    for (text, wanted) in [
        ("127.0.0.1:5000", true),
        ("localhost:5000/team", true),
        ("[::1]:5000", true),
        ("http://192.168.3.4:5000", true),
        ("http://[fd00::1]:5000", true),
        ("192.168.3.4:5000", false),
        ("registry.example", false),
        ("https://127.0.0.1:5000", false),
    ] {
        assert_eq!(plain(text, false).unwrap(), wanted, "{text}");
    }
    for text in ["http://registry.example", "http://8.8.8.8:5000"] {
        let error = plain(text, false).unwrap_err();
        assert!(error.to_string().contains("--insecure"), "{error}");
        assert!(plain(text, true).unwrap());
    }
    assert!(plain("ftp://127.0.0.1", true).is_err());
    assert!(plain("", true).is_err());
}

#[test]
fn names_of_images_begin_with_the_registry_and_its_path() {
    let address = Address::parse("https://r.example/team/", false).unwrap();
    assert_eq!(address.prefix(), "r.example/team/");
    assert_eq!(address.repository("x"), "team/x");
    assert_eq!(address.url("a"), "https://r.example/v2/a");
}

#[test]
fn an_upload_goes_where_the_registry_says() {
    let digest = Digest::of(b"");
    let to = |location| uploading("http://r:5000/v2/x/blobs/uploads/", location, &digest).unwrap();
    assert_eq!(
        to("/v2/x/up/1?s=2"),
        format!("http://r:5000/v2/x/up/1?s=2&digest={digest}")
    );
    assert_eq!(
        to("https://s.example/up"),
        format!("https://s.example/up?digest={digest}")
    );
}
