//! Probes of real programs. Their times are whole seconds, so these tests take some.

use std::fs;

use baetyl_model::resource::{ExecAction, HttpGetAction, Port, Probe, TcpSocketAction};
use baetyl_runtime_native::spec::InstancePort;
use baetyl_runtime_native::status::RunEnd;
use baetyl_runtime_native::{InstanceSpec, Phase, Reason};

use crate::node::{Node, one, script, service};

fn exec(command: &str) -> Probe {
    let command = vec!["sh".to_owned(), "-c".to_owned(), command.to_owned()];
    Probe {
        exec: Some(ExecAction { command }),
        period_seconds: 1,
        failure_threshold: 1,
        ..Probe::default()
    }
}

fn http(port: Port, path: &str) -> Probe {
    Probe {
        http_get: Some(HttpGetAction {
            path: path.to_owned(),
            port,
            ..HttpGetAction::default()
        }),
        period_seconds: 1,
        failure_threshold: 1,
        ..Probe::default()
    }
}

#[tokio::test]
async fn readiness_flips_both_ways_and_restarts_nothing() {
    let node = Node::new().await;
    node.runtime()
        .run(service(InstanceSpec {
            readiness: Some(exec("test -f ready")),
            ..script("exec sleep 600")
        }))
        .unwrap();
    let status = node
        .until_one("not ready, and why", |status| {
            status.phase == Phase::Running && !status.message.is_empty()
        })
        .await;
    assert_eq!(
        (status.ready, status.reason),
        (false, Some(Reason::NotReady))
    );
    let mark = node.runtime().instance_dir(&one()).join("ready");
    fs::write(&mark, "").unwrap();
    let status = node.until_one("ready", |status| status.ready).await;
    assert_eq!((status.reason, status.message.as_str()), (None, ""));
    fs::remove_file(&mark).unwrap();
    let status = node
        .until_one("not ready again", |status| !status.ready)
        .await;
    assert_eq!((status.phase, status.restarts), (Phase::Running, 0));
}

#[tokio::test]
async fn a_failed_liveness_probe_restarts_it() {
    let node = Node::new().await;
    node.runtime()
        .run(service(InstanceSpec {
            liveness: Some(exec("test ! -f dead")),
            ..script("rm -f dead; echo up; exec sleep 600")
        }))
        .unwrap();
    node.until_logged(&one(), "up\n").await;
    let before = node.until_running().await;
    fs::write(node.runtime().instance_dir(&one()).join("dead"), "").unwrap();
    let status = node
        .until_one("a restart", |status| {
            status.restarts == 1 && status.phase == Phase::Running
        })
        .await;
    let exit = status.last_exit.unwrap();
    assert_eq!(
        (exit.end, exit.reason),
        (RunEnd::Signal(15), Reason::LivenessFailed)
    );
    assert!(
        exit.message.contains("liveness probe failed"),
        "{}",
        exit.message
    );
    assert_ne!(status.process.unwrap().app, before.app);
}

#[tokio::test]
async fn the_other_probes_wait_for_the_startup_probe() {
    let node = Node::new().await;
    let startup = Probe {
        failure_threshold: 1000,
        ..exec("test -f started")
    };
    // Would kill it at once if it were asked before.
    let spec = InstanceSpec {
        startup: Some(startup),
        liveness: Some(exec("test -f started")),
        ..script("exec sleep 600")
    };
    node.runtime().run(service(spec)).unwrap();
    let status = node.until_phase(Phase::Running).await;
    assert_eq!(
        (status.ready, status.reason),
        (false, Some(Reason::NotStarted))
    );
    fs::write(node.runtime().instance_dir(&one()).join("started"), "").unwrap();
    let status = node.until_one("started", |status| status.ready).await;
    assert_eq!(status.restarts, 0);
}

#[tokio::test]
async fn a_failed_startup_probe_restarts_it() {
    let node = Node::new().await;
    node.runtime()
        .run(service(InstanceSpec {
            startup: Some(exec("false")),
            ..script("exec sleep 600")
        }))
        .unwrap();
    let status = node
        .until_one("a restart", |status| status.restarts >= 1)
        .await;
    assert_eq!(status.last_exit.unwrap().reason, Reason::StartupFailed);
}

#[tokio::test]
async fn http_and_tcp_are_asked_at_the_real_port() {
    let node = Node::new().await;
    let port = baetyl_testkit::free_port();
    let server = format!(
        "mkdir -p www; echo fine > www/health; cd www; exec python3 -u -m http.server {port} --bind 127.0.0.1"
    );
    let spec = InstanceSpec {
        ports: vec![InstancePort {
            name: "web".to_owned(),
            declared: 80,
            port,
        }],
        startup: Some(Probe {
            failure_threshold: 60,
            ..http(Port::Name("web".to_owned()), "/health")
        }),
        readiness: Some(http(Port::Number(80), "health")),
        liveness: Some(Probe {
            tcp_socket: Some(TcpSocketAction {
                port: Port::Number(80),
                host: String::new(),
            }),
            period_seconds: 1,
            ..Probe::default()
        }),
        ..script(&server)
    };
    node.runtime().run(service(spec)).unwrap();
    node.until_one("ready", |status| status.ready).await;
    let log = node.until_logged(&one(), "GET /health").await;
    assert!(log.contains("\" 200"), "{log}");
    fs::remove_file(node.runtime().instance_dir(&one()).join("www/health")).unwrap();
    let status = node
        .until_one("not ready", |status| {
            !status.ready && status.reason == Some(Reason::NotReady)
        })
        .await;
    assert!(
        status.message.contains("answered 404"),
        "{}",
        status.message
    );
    assert_eq!(status.restarts, 0);
}

#[tokio::test]
async fn a_probe_native_mode_does_not_have_is_refused_by_name() {
    let node = Node::new().await;
    let https = HttpGetAction {
        scheme: "HTTPS".to_owned(),
        port: Port::Number(443),
        ..HttpGetAction::default()
    };
    let cases = [
        (Probe::default(), "exactly one"),
        (
            Probe {
                http_get: Some(https),
                ..Probe::default()
            },
            "HTTPS",
        ),
        (http(Port::Name("absent".to_owned()), "/"), "absent"),
        (http(Port::Number(0), "/"), "no port"),
    ];
    for (index, (probe, word)) in cases.into_iter().enumerate() {
        let mut spec = service(InstanceSpec {
            liveness: Some(probe),
            ..script("exec sleep 600")
        });
        spec.key.app = format!("app-{index}").try_into().unwrap();
        let key = spec.key.clone();
        node.runtime().run(spec).unwrap();
        let failed = |observed: &baetyl_runtime_native::Observed| {
            observed.of(&key).any(|(_, status)| {
                status
                    .last_exit
                    .as_ref()
                    .is_some_and(|exit| exit.reason == Reason::ProbeInvalid)
            })
        };
        let observed = node.until("refused", failed).await;
        let (_, status) = observed.of(&key).next().unwrap();
        let message = &status.last_exit.as_ref().unwrap().message;
        assert!(
            message.contains("liveness probe") && message.contains(word),
            "{message}"
        );
    }
}

#[tokio::test]
async fn an_adopted_instance_is_asked_at_once() {
    let mut node = Node::new().await;
    let probe = Probe {
        initial_delay_seconds: 1,
        ..exec("true")
    };
    let spec = service(InstanceSpec {
        readiness: Some(Probe {
            initial_delay_seconds: 3600,
            ..probe
        }),
        ..script("exec sleep 600")
    });
    node.runtime().run(spec.clone()).unwrap();
    assert!(!node.until_phase(Phase::Running).await.ready);
    node.remake().await;
    node.runtime().run(spec).unwrap();
    let status = node.until_one("ready", |status| status.ready).await;
    assert!(status.adopted);
}
