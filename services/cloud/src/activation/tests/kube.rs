//! What install commands fetch, over the real port; and the command itself, run by a shell with the clients of this machine.

use baetyl_testkit::{ManualClock, skipped};
use jiff::Timestamp;

use super::*;
use crate::install::kube::tests::{Machine, Ran, find};
use crate::install::kube::{KubeOptions, SCRIPT};
use crate::pki::testing::fixture_at;

const SCRIPT_PATH: &str = "/v1/init/kube/install.sh";
const MANIFESTS_PATH: &str = "/v1/init/kube/manifests";
const STATE_PATH: &str = "/v1/init/kube/state";

/// A cloud at the time of this machine, with a node in mode kube.
async fn with_node() -> Setup {
    let setup = setup_with(fixture_at(ManualClock::new(Timestamp::now())).await).await;
    setup.fixture.add_node("edge-1").await;
    setup.fixture.set_mode("edge-1", "kube").await;
    setup
}

impl Setup {
    async fn get(&self, path: &str, authorization: &str) -> (http::response::Parts, String) {
        let mut request = http::Request::get(path).header("host", "localhost");
        if !authorization.is_empty() {
            request = request.header("authorization", authorization);
        }
        let request = request.body(Full::default()).unwrap();
        let (parts, bytes) = self.send(request).await;
        (parts, String::from_utf8(bytes.to_vec()).unwrap())
    }

    async fn command(&self) -> String {
        let node = self.fixture.node("edge-1").await;
        let token = self.token("edge-1").await;
        let options = KubeOptions {
            class: "node-1gb".to_owned(),
            ..KubeOptions::default()
        };
        self.install.command(&node, &token, &options).unwrap()
    }

    /// The node is there.
    async fn online(&self) {
        let node = self.fixture.node("edge-1").await;
        self.reports.seen(&node.namespace, &node.uid).await;
    }
}

#[tokio::test]
async fn with_a_token_of_the_node_script_manifests_and_state_are_given() {
    let setup = with_node().await;
    let bearer = format!("Bearer {}", setup.token("edge-1").await);
    for path in [SCRIPT_PATH, "/v1/init/baetyl-install.sh"] {
        let (parts, body) = setup.get(path, &bearer).await;
        assert_eq!(
            (parts.status.as_u16(), body.as_str()),
            (200, SCRIPT),
            "{path}"
        );
        assert_eq!(parts.headers["cache-control"], "no-store");
    }
    for path in [MANIFESTS_PATH, "/v1/init/baetyl-init-deployment.yml"] {
        let query = "?class=k3s&registry=r%3A5000/b&distribution=&token=of-v2";
        let (parts, body) = setup.get(&format!("{path}{query}"), &bearer).await;
        assert_eq!(parts.status, 200, "{body}");
        assert!(
            body.contains("# baetyl.io/node: default/edge-1\n"),
            "{body}"
        );
        assert!(body.contains("image: r:5000/b/baetyl-init:"), "{body}");
    }
    let (parts, body) = setup.get(STATE_PATH, &bearer).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(parts.status, 200);
    assert_eq!(
        body,
        json!({"node": "default/edge-1", "ready": "uninstalled", "version": ""})
    );
    setup.online().await;
    let (_, body) = setup.get(STATE_PATH, &bearer).await;
    assert!(body.contains("\"ready\":\"online\""), "{body}");
}

#[tokio::test]
async fn without_a_good_token_nothing_is_given() {
    let setup = with_node().await;
    let token = setup.token("edge-1").await;
    for path in [SCRIPT_PATH, MANIFESTS_PATH, STATE_PATH] {
        for authorization in ["", "Bearer x", "Bearer", &format!("Basic {token}"), &token] {
            let (parts, body) = setup.get(path, authorization).await;
            assert_eq!(parts.status, 401, "{path} {authorization}: {body}");
            assert_eq!(parts.headers["www-authenticate"], "Bearer");
            assert!(body.contains("ErrRequestAccessDenied"), "{body}");
        }
        let (parts, _) = setup.get(&format!("{path}?token={token}"), "").await;
        assert_eq!(parts.status, 401, "addresses are written down by proxies");
    }
    setup.fixture.clock.advance(Duration::from_secs(3600));
    let (parts, body) = setup.get(STATE_PATH, &format!("Bearer {token}")).await;
    assert!(parts.status == 401 && body.contains("expired"), "{body}");
    let bearer = format!("bearer {}", setup.token("edge-1").await);
    assert_eq!(setup.get(STATE_PATH, &bearer).await.0.status, 200);
    setup.fixture.delete_node("edge-1").await;
    let (parts, body) = setup.get(STATE_PATH, &bearer).await;
    assert!(
        parts.status == 401 && body.contains("does not exist any more"),
        "{body}"
    );
}

#[tokio::test]
async fn what_cannot_be_asked_for_is_told() {
    let setup = with_node().await;
    let bearer = format!("Bearer {}", setup.token("edge-1").await);
    for query in ["class=huge", "registry=a%20b", "pullSecret=A", "class=%ff"] {
        let (parts, body) = setup
            .get(&format!("{MANIFESTS_PATH}?{query}"), &bearer)
            .await;
        assert_eq!(parts.status, 400, "{query}: {body}");
        assert!(body.contains("ErrRequestParamInvalid"), "{body}");
    }
    setup.fixture.set_mode("edge-1", "native").await;
    let (parts, body) = setup.get(MANIFESTS_PATH, &bearer).await;
    assert!(
        parts.status == 400 && body.contains("nodeMode native"),
        "{body}"
    );
    assert_eq!(setup.get("/v1/init/nothing", &bearer).await.0.status, 404);
}

#[tokio::test]
async fn an_address_that_asks_too_often_is_told_to_wait() {
    let setup = with_node().await;
    let mut last = None;
    for _ in 0..61 {
        last = Some(setup.get(STATE_PATH, "Bearer x").await);
    }
    let (parts, body) = last.unwrap();
    assert_eq!(parts.status, 429, "{body}");
    assert_eq!(parts.headers["retry-after"], "5");
    assert!(body.contains("ErrRequestLimited"), "{body}");
    assert_eq!(setup.post("{}").await.0, 429, "activation over REST, too");
    setup.fixture.add_node("edge-2").await;
    let token = setup.token("edge-2").await;
    setup.activate(&token, &node_key(), "").await.unwrap();
    setup.fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(setup.get(STATE_PATH, "Bearer x").await.0.status, 401);
}

/// Runs a command as somebody would who copied it.
async fn paste(machine: Machine, command: String) -> (Machine, Ran) {
    let run = move || {
        let ran = machine.run(&["sh", "-c"], &[&command], &[]);
        (machine, ran)
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_installs_a_cluster_with_curl_or_wget() {
    for client in ["curl", "wget"] {
        if find(client).is_none() {
            skipped(client);
            continue;
        }
        let setup = with_node().await;
        setup.online().await;
        let machine = Machine::with_cluster();
        machine.has(client);
        let (machine, ran) = paste(machine, setup.command().await).await;
        assert!(ran.ok, "{client}: {ran:?}");
        assert!(
            ran.out.contains("node default/edge-1 is installed"),
            "{client}: {ran:?}"
        );
        let applied = machine.read("applied");
        assert!(
            applied.contains("# baetyl.io/class: node-1gb\n"),
            "{applied}"
        );
        assert!(applied.contains(&setup.fixture.pki.server_authority_pin()));
        assert!(machine.read("token").contains("\n  token: bi1."));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_another_cloud_nothing_is_taken() {
    for client in ["curl", "wget"] {
        if find(client).is_none() {
            skipped(client);
            continue;
        }
        let (setup, other) = (with_node().await, with_node().await);
        // The address of one cloud, the authority of the other.
        let command = setup.command().await.replace(&setup.addr, &other.addr);
        let machine = Machine::with_cluster();
        machine.has(client);
        let (machine, ran) = paste(machine, command).await;
        assert!(
            !ran.ok && ran.err.to_lowercase().contains("certificate"),
            "{client}: {ran:?}"
        );
        assert_eq!(machine.read("asked"), "", "the script was not even fetched");
    }
}

#[tokio::test]
async fn without_a_client_that_checks_certificates_the_command_says_so() {
    let setup = with_node().await;
    let machine = Machine::with_cluster();
    machine.fake(
        "wget",
        "#!/bin/sh\necho 'BusyBox v1.35.0 multi-call binary. -O FILE'\n",
    );
    let (_, ran) = paste(machine, setup.command().await).await;
    assert!(
        !ran.ok && ran.err.contains("curl, or a wget that checks certificates"),
        "{ran:?}"
    );
}
