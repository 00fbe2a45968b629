//! Objects on web servers.

use std::fs;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use baetyl_kit::clock::Clock;
use baetyl_kit::listen::Listen;
use baetyl_kit::{serve, tls};
use baetyl_proto::digest;
use baetyl_testkit::{Leaf, ManualClock};
use tonic::Code;

use super::harness::World;
use super::staging::{object, object_ref, open, stage};
use crate::Config;

/// A server with one file.
#[derive(Clone, Default)]
struct Web(Arc<Mutex<Shelf>>);

#[derive(Default)]
struct Shelf {
    file: Vec<u8>,
    etag: String,
    no_ranges: bool,
    /// (Range, If-Range) of each request.
    asked: Vec<(Option<String>, Option<String>)>,
}

impl Web {
    fn new(file: &[u8], etag: &str) -> Self {
        let web = Self::default();
        web.put(file, etag);
        web
    }

    fn put(&self, file: &[u8], etag: &str) {
        let mut shelf = self.0.lock().unwrap();
        shelf.file = file.to_vec();
        shelf.etag = etag.to_owned();
    }

    fn asked(&self) -> Vec<(Option<String>, Option<String>)> {
        self.0.lock().unwrap().asked.clone()
    }

    fn router(&self) -> Router {
        Router::new()
            .route("/file", get(file))
            .route(
                "/moved",
                get(|| async { Redirect::temporary("/file?signature=1") }),
            )
            .route("/forbidden", get(|| async { StatusCode::FORBIDDEN }))
            .with_state(self.clone())
    }

    async fn serve(&self, world: &World) -> String {
        let listen = serve::http(&world.kit, "web", &Listen::loopback(), None, self.router()).await;
        format!("http://{}", listen.unwrap())
    }
}

async fn file(State(web): State<Web>, headers: HeaderMap) -> Response {
    let mut shelf = web.0.lock().unwrap();
    let header = |name: &str| {
        headers
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
    };
    let (range, condition) = (header("range"), header("if-range"));
    shelf.asked.push((range.clone(), condition.clone()));
    let etag = [("etag", shelf.etag.clone())];
    let same = condition.is_none_or(|condition| condition == shelf.etag);
    let from = range.and_then(|range| {
        let from = range.strip_prefix("bytes=")?.strip_suffix('-')?;
        from.parse::<usize>().ok()
    });
    match from.filter(|_| same && !shelf.no_ranges) {
        Some(from) if from < shelf.file.len() => {
            let length = shelf.file.len();
            let range = [(
                "content-range",
                format!("bytes {from}-{}/{length}", length - 1),
            )];
            (
                StatusCode::PARTIAL_CONTENT,
                etag,
                range,
                shelf.file[from..].to_vec(),
            )
                .into_response()
        }
        Some(_) => StatusCode::RANGE_NOT_SATISFIABLE.into_response(),
        None => (etag, shelf.file.clone()).into_response(),
    }
}

#[tokio::test]
async fn an_object_with_a_url_is_fetched_there_without_any_cloud() {
    let world = World::new().await;
    let bytes = object(1);
    let web = Web::new(&bytes, "\"v1\"");
    let url = web.serve(&world).await;
    for path in ["/file", "/moved"] {
        let wanted = object_ref(&bytes, &format!("{url}{path}"));
        stage(&world, &[], &[wanted]).await.unwrap();
        assert_eq!(open(&world, &digest::of(&bytes)).await.unwrap(), bytes);
    }
    assert_eq!(
        web.asked(),
        [(None, None)],
        "the second time it is there already"
    );
    let other = object_ref(&object(2), &format!("{url}/moved"));
    let refused = stage(&world, &[], &[other]).await.unwrap_err();
    assert_eq!(
        refused.code(),
        Code::DataLoss,
        "followed, and the wrong file"
    );
}

#[tokio::test]
async fn a_part_goes_on_with_a_range_if_the_file_is_still_the_same() {
    let world = World::new().await;
    let bytes = object(1);
    let web = Web::new(&bytes, "\"v1\"");
    let url = format!("{}/file", web.serve(&world).await);
    let part = world
        .dir
        .join(format!("sync/partial/{}", digest::of(&bytes).hex()));
    let leave = |etag: &str, part_of: &[u8]| {
        fs::write(&part, &part_of[..1000]).unwrap();
        fs::write(part.with_extension("origin"), format!("{url}\n{etag}\n")).unwrap();
    };
    leave("\"v1\"", &bytes);
    stage(&world, &[], &[object_ref(&bytes, &url)])
        .await
        .unwrap();
    let condition = Some("\"v1\"".to_owned());
    assert_eq!(web.asked(), [(Some("bytes=1000-".to_owned()), condition)]);
    assert_eq!(open(&world, &digest::of(&bytes)).await.unwrap(), bytes);
}

#[tokio::test]
async fn a_file_that_changed_or_a_server_without_ranges_is_fetched_from_the_start() {
    let world = World::new().await;
    let web = Web::new(b"", "");
    let url = format!("{}/file", web.serve(&world).await);
    for (seed, etag, no_ranges) in [(1, "\"new\"", false), (2, "\"old\"", true)] {
        let bytes = object(seed);
        web.put(&bytes, etag);
        web.0.lock().unwrap().no_ranges = no_ranges;
        let part = world
            .dir
            .join(format!("sync/partial/{}", digest::of(&bytes).hex()));
        fs::write(&part, vec![0; 1000]).unwrap();
        fs::write(part.with_extension("origin"), format!("{url}\n\"old\"\n")).unwrap();
        stage(&world, &[], &[object_ref(&bytes, &url)])
            .await
            .unwrap();
        assert_eq!(open(&world, &digest::of(&bytes)).await.unwrap(), bytes);
    }
    assert_eq!(web.asked().len(), 2, "no second attempt was needed");
}

#[tokio::test]
async fn what_a_web_server_does_not_give_has_the_code_of_the_contract() {
    let world = World::new().await;
    let web = Web::new(b"", "");
    let url = web.serve(&world).await;
    let closed = baetyl_testkit::ClosedPort::take();
    let nobody = format!("http://{}/file", closed.addr());
    for (url, code) in [
        (format!("{url}/nothing"), Code::NotFound),
        (format!("{url}/forbidden"), Code::PermissionDenied),
        (nobody, Code::Unavailable),
    ] {
        let refused = stage(&world, &[], &[object_ref(b"x", &url)])
            .await
            .unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
    }
}

#[tokio::test]
async fn an_https_server_of_a_configured_authority_is_trusted_at_any_clock() {
    let bytes = object(1);
    let clock = ManualClock::at("1970-01-01T00:00:00Z");
    let mut world = World::without_sync(Config::default(), clock.clock()).await;
    let leaf = Leaf::new("web")
        .name("127.0.0.1")
        .valid("2026-06-01T00:00:00Z", "2026-09-01T00:00:00Z");
    let server = world.cloud.ca().issue(&leaf);
    let server = tls::server_config(server.identity(), &tls::ClientAuth::None, None).unwrap();
    let web = Web::new(&bytes, "\"v1\"");
    let listen = serve::http(
        &world.kit,
        "web",
        &Listen::loopback(),
        Some(server.into()),
        web.router(),
    )
    .await
    .unwrap();
    let wanted = object_ref(&bytes, &format!("https://{listen}/file"));
    world.start_sync().await;
    let refused = stage(&world, &[], std::slice::from_ref(&wanted))
        .await
        .unwrap_err();
    assert_eq!(
        refused.code(),
        Code::Unavailable,
        "not an authority of the web"
    );
    world.stop_sync().await;
    let pem = world.dir.write("web.pem", world.cloud.ca().pem());
    world.config.web.authorities = Some(pem);
    world.clock = Clock::system();
    world.start_sync().await;
    stage(&world, &[], &[wanted]).await.unwrap();
}
