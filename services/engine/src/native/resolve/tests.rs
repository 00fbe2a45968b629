#![allow(clippy::unwrap_used, clippy::expect_used)]

use baetyl_model::desire::Unpack;
use baetyl_runtime_native::spec::{Content, Mount, MountSource};
use serde_json::{Value, json};

use super::*;
use crate::shape::Strategy;
use crate::testing::{Release, ReleaseBuilder, release};

mod users;

struct Case {
    objects: Objects,
    tokens: TokenIssuer,
    place: Place,
    node: NodeIdentity,
    user: Option<RunAs>,
    certificates: BTreeMap<String, Certificates>,
    _dir: tempfile::TempDir,
}

fn case() -> Case {
    let dir = tempfile::tempdir().unwrap();
    Case {
        objects: Objects::open(dir.path().join("objects"), 1 << 20).unwrap(),
        tokens: TokenIssuer::open(&dir.path().join("app.key")).unwrap(),
        place: Place {
            data_dir: "/d".into(),
            run_dir: "/d/engine/run".into(),
            node_socket: "/d/run/apps/node.sock".into(),
            function_socket: "/d/run/apps/function-proxy.sock".into(),
            runtimes: BTreeMap::from([(
                "python3".to_owned(),
                vec!["/bin/rt".to_owned(), "run".to_owned()],
            )]),
            private_runtimes: BTreeSet::new(),
        },
        node: NodeIdentity {
            namespace: "default".to_owned(),
            name: "edge-1".to_owned(),
        },
        user: None,
        certificates: BTreeMap::new(),
        _dir: dir,
    }
}

impl Case {
    fn resolve(&self, release: &Release) -> Result<Resolved<WorkloadSpec>, ResolveError> {
        let bodies = release.bodies();
        let request = Request {
            release: &release.desired,
            bodies: &bodies,
            objects: &self.objects,
            place: &self.place,
            node: &self.node,
            tokens: &self.tokens,
            taken_at: Timestamp::UNIX_EPOCH,
            user: self.user,
            certificates: &self.certificates,
        };
        let mut next = 50200;
        resolve(&request, &mut |_, count| {
            let ports = (0..count)
                .map(|_| {
                    next += 1;
                    next - 1
                })
                .collect();
            Ok(ports)
        })
    }

    fn one(&self, builder: ReleaseBuilder) -> InstanceSpec {
        self.resolve(&builder.build())
            .unwrap()
            .services
            .remove(0)
            .instances
            .remove(0)
    }

    fn refused(&self, builder: ReleaseBuilder) -> String {
        baetyl_kit::error::chain(&self.resolve(&builder.build()).unwrap_err())
    }
}

fn app(service: Value) -> ReleaseBuilder {
    release(
        "shop",
        "7",
        json!({"mode": "native", "services": [service]}),
    )
}

fn mount<'a>(spec: &'a InstanceSpec, path: &str) -> &'a Mount {
    spec.mounts.iter().find(|mount| mount.path == path).unwrap()
}

fn text(content: &Content) -> String {
    match content {
        Content::Bytes(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        other => panic!("{other:?} holds no text"),
    }
}

#[test]
fn an_instance_is_told_who_and_where_it_is_and_cannot_be_told_otherwise() {
    let service = json!({"name": "web", "command": ["run"], "env": [
        {"name": "GREETING", "value": "hello from $(BAETYL_NODE_NAME)"},
        {"name": "BAETYL_NODE_NAME", "value": "forged"},
        {"name": "BAETYL_CONF_FILE", "value": "/my/conf.yml"},
    ]});
    let spec = case().one(app(service));
    let expected = [
        ("BAETYL_APP_NAME", "shop"),
        ("BAETYL_SERVICE_NAME", "web"),
        ("BAETYL_APP_VERSION", "7"),
        ("BAETYL_NODE_NAME", "edge-1"),
        ("BAETYL_NODE_NAMESPACE", "default"),
        ("BAETYL_RUN_MODE", "native"),
        ("BAETYL_HOST_PATH_LIB", "/d"),
        ("BAETYL_SERVICE_DYNAMIC_PORT", "50200"),
        (
            "BAETYL_TOKEN_FILE",
            "/d/engine/run/baetyl-edge/shop/7/web/1/token",
        ),
        ("BAETYL_NODE_SOCKET", "/d/run/apps/node.sock"),
        ("BAETYL_FUNCTION_SOCKET", "/d/run/apps/function-proxy.sock"),
        ("GREETING", "hello from edge-1"),
        ("BAETYL_CONF_FILE", "/my/conf.yml"),
    ];
    for (name, value) in expected {
        assert_eq!(
            spec.env.get(name).map(String::as_str),
            Some(value),
            "{name}"
        );
    }
}

#[test]
fn the_token_file_names_the_instance_and_is_the_same_when_resolved_again() {
    let case = case();
    let builder = app(json!({"name": "web", "command": ["run"]}));
    let (first, again) = (case.one(builder.clone()), case.one(builder));
    assert_eq!(first, again);
    let file = first
        .files
        .iter()
        .find(|file| file.path == "token")
        .unwrap();
    let claims = case.tokens.verify(&text(&file.content)).unwrap();
    assert_eq!(claims.instance, "baetyl-edge.shop.7.web.1");
    assert_eq!(file.mode, Some(0o600));
}

#[test]
fn volumes_appear_at_their_paths_with_the_modes_of_their_kind() {
    let service = json!({"name": "web", "volumeMounts": [
        {"name": "conf", "mountPath": "/etc/baetyl"},
        {"name": "cred", "mountPath": "/var/secret"},
        {"name": "prog", "mountPath": "/var/lib/baetyl/bin"},
        {"name": "tmp", "mountPath": "/tmp/x"},
    ]});
    let body = json!({"services": [service], "volumes": [
        {"name": "conf", "config": {"name": "shop-conf", "version": "7"}},
        {"name": "cred", "secret": {"name": "shop-cred", "version": "7"}},
        {"name": "prog", "config": {"name": "shop-prog", "version": "7"}},
        {"name": "tmp", "emptyDir": {}},
    ]});
    let builder = release("shop", "7", body)
        .configuration("shop-conf", json!({"conf.yml": "a: 1"}))
        .secret("shop-cred", json!({"password": "c2VjcmV0"}))
        .configuration(
            "shop-prog",
            json!({"program.yml": "entry: run.sh", "run.sh": "#!/bin/sh"}),
        );
    let spec = case().one(builder);
    assert_eq!(spec.program, Program::Package);
    let MountSource::Config(conf) = &mount(&spec, "/etc/baetyl").source else {
        panic!()
    };
    assert_eq!(
        (
            conf[0].path.as_str(),
            text(&conf[0].content).as_str(),
            conf[0].mode
        ),
        ("conf.yml", "a: 1", None)
    );
    let MountSource::Secret(secret) = &mount(&spec, "/var/secret").source else {
        panic!()
    };
    assert_eq!(text(&secret[0].content), "secret");
    let MountSource::Config(program) = &mount(&spec, "/var/lib/baetyl/bin").source else {
        panic!()
    };
    assert!(
        program.iter().all(|file| file.mode == Some(0o755)),
        "programs can be executed"
    );
    assert_eq!(mount(&spec, "/tmp/x").source, MountSource::EmptyDir);
}

#[test]
fn objects_come_from_engines_own_copies_unpacked_when_asked() {
    let case = case();
    let service = json!({"name": "web", "volumeMounts": [{"name": "prog", "mountPath": "/var/lib/baetyl/bin"}]});
    let body = json!({"services": [service], "volumes": [{"name": "prog", "config": {"name": "shop-prog"}}]});
    let builder = release("shop", "7", body)
        .configuration(
            "shop-prog",
            json!({"_object_app.tgz": "{}", "_object_model.bin": "{}", "note": "x"}),
        )
        .object("shop-prog", "app.tgz", b"archive", Unpack::Tgz)
        .object("shop-prog", "model.bin", b"model", Unpack::None);
    let spec = case.one(builder.clone());
    let MountSource::Config(files) = &spec.mounts[0].source else {
        panic!()
    };
    let model = files.iter().find(|file| file.path == "model.bin").unwrap();
    assert_eq!(
        model.content,
        Content::Copy(case.objects.file(&crate::testing::digest(b"model")))
    );
    let tree = case
        .objects
        .tree(&crate::testing::digest(b"archive"), Unpack::Tgz);
    assert!(
        files
            .iter()
            .any(|file| file.content == Content::Tree(tree.clone()))
    );
    assert!(files.iter().any(|file| file.path == "note"));

    let without = release("shop", "7", json!({"services": [{"name": "web", "volumeMounts":
        [{"name": "prog", "mountPath": "/var/lib/baetyl/bin"}]}], "volumes": [{"name": "prog", "config": {"name": "shop-prog"}}]}))
        .configuration("shop-prog", json!({"_object_app.tgz": "{}"}));
    assert!(case.refused(without).contains("object \"app.tgz\""));
}

#[test]
fn the_library_variable_counts_in_host_paths_and_nowhere_else() {
    let variable = "{{.BAETYL_HOST_PATH_LIB}}";
    let service = json!({"name": "web", "command": ["run", variable], "env": [{"name": "LIB", "value": variable}],
        "volumeMounts": [
            {"name": "lib", "mountPath": "/lib1"}, {"name": "rel", "mountPath": "/rel"}, {"name": "abs", "mountPath": "/abs"}]});
    let body = json!({"services": [service], "volumes": [
        {"name": "lib", "hostPath": {"path": format!("{variable}/models")}},
        {"name": "rel", "hostPath": {"path": "cache/a"}},
        {"name": "abs", "hostPath": {"path": "/dev/shm"}}]});
    let spec = case().one(release("shop", "7", body));
    let host = |path: &str| mount(&spec, path).source.clone();
    assert_eq!(host("/lib1"), MountSource::HostPath("/d/models".into()));
    assert_eq!(
        host("/rel"),
        MountSource::HostPath("/d/host/cache/a".into())
    );
    assert_eq!(host("/abs"), MountSource::HostPath("/dev/shm".into()));
    assert_eq!(spec.env["LIB"], variable);
    assert_eq!(
        spec.program,
        Program::Command(vec!["run".to_owned(), variable.to_owned()])
    );
}

#[test]
fn a_relative_host_path_cannot_leave_the_host_directory() {
    for path in ["../engine", "a/../../engine", ""] {
        let body = json!({"services": [{"name": "web", "command": ["run"], "volumeMounts": [{"name": "v1", "mountPath": "/v"}]}],
            "volumes": [{"name": "v1", "hostPath": {"path": path}}]});
        assert!(
            case()
                .refused(release("shop", "7", body))
                .contains("leads out"),
            "{path}"
        );
    }
}

#[test]
fn ports_are_handed_out_or_fixed_and_can_be_used_in_commands() {
    let service = json!({"name": "web", "command": ["run"], "args": ["--port=$(BAETYL_PORT_80)", "$$(X)", "$(UNKNOWN)"],
        "ports": [{"containerPort": 80}, {"containerPort": 443, "hostPort": 8443}]});
    let spec = case().one(app(service));
    let real: Vec<_> = spec
        .ports
        .iter()
        .map(|port| (port.declared, port.port))
        .collect();
    assert_eq!(real, [(80, 50200), (443, 8443)]);
    assert_eq!(spec.args, ["--port=50200", "$(X)", "$(UNKNOWN)"]);
    assert_eq!(
        ports_of_text(&spec.env[PORTS_VARIABLE]),
        [50200],
        "those that were handed out"
    );
}

#[test]
fn replicas_have_their_own_ports_and_a_fixed_port_allows_only_one() {
    let ports = json!([{"containerPort": 80}]);
    let body =
        json!({"replica": 3, "services": [{"name": "web", "command": ["run"], "ports": ports}]});
    let resolved = case().resolve(&release("shop", "7", body).build()).unwrap();
    let ports: Vec<_> = resolved.services[0]
        .instances
        .iter()
        .map(|spec| spec.ports[0].port)
        .collect();
    assert_eq!(ports, [50200, 50201, 50202]);
    let body = json!({"replica": 2, "services": [{"name": "web", "command": ["run"], "ports": [{"hostPort": 80}]}]});
    assert!(
        case()
            .refused(release("shop", "7", body))
            .contains("host port 80 and 2 instances")
    );
}

#[test]
fn a_function_service_runs_its_runtime_with_its_functions_and_code() {
    let service = json!({"name": "fn1", "functionConfig": {"name": "code", "runtime": "python3"},
        "functions": [{"name": "hello", "handler": "index.handler", "codedir": "src", "timeoutMs": 1500}]});
    let builder = release(
        "greet",
        "3",
        json!({"type": "function", "services": [service]}),
    )
    .configuration(
        "code",
        json!({"index.py": "def handler(event, context): return event"}),
    );
    let spec = case().one(builder);
    assert_eq!(
        spec.program,
        Program::Command(vec!["/bin/rt".to_owned(), "run".to_owned()])
    );
    let dir = "/d/engine/run/baetyl-edge/greet/3/fn1/1";
    assert_eq!(
        spec.env["BAETYL_FUNCTIONS_FILE"],
        format!("{dir}/etc/baetyl/conf.yml")
    );
    assert_eq!(
        spec.env["BAETYL_CODE_PATH"],
        format!("{dir}/var/lib/baetyl/code")
    );
    assert!(matches!(
        mount(&spec, "/var/lib/baetyl/code").source,
        MountSource::Config(_)
    ));
    let conf = spec
        .files
        .iter()
        .find(|file| file.path == "etc/baetyl/conf.yml")
        .unwrap();
    let conf: Value = serde_json::from_str(&text(&conf.content)).unwrap();
    assert_eq!(
        conf,
        json!({"functions": [{"name": "hello", "handler": "index.handler", "codedir": "src", "timeoutMs": 1500}]})
    );
}

#[test]
fn functions_file_and_code_that_came_with_the_release_are_used() {
    let service = json!({"name": "fn1", "functionConfig": {"name": "code", "runtime": "python3"}, "volumeMounts": [
        {"name": "baetyl-function-config", "mountPath": "/etc/baetyl"},
        {"name": "baetyl-function-code-fn1", "mountPath": "/var/lib/baetyl/code"}]});
    let body = json!({"type": "function", "services": [service], "volumes": [
        {"name": "baetyl-function-config", "config": {"name": "generated"}},
        {"name": "baetyl-function-code-fn1", "config": {"name": "code"}}]});
    let builder = release("greet", "3", body)
        .configuration("generated", json!({"conf.yml": "functions: []"}))
        .configuration("code", json!({"index.py": ""}));
    let spec = case().one(builder);
    assert_eq!(spec.mounts.len(), 2);
    assert_eq!(spec.files.len(), 1, "the token alone");
}

#[test]
fn a_runtime_this_node_does_not_have_is_refused_by_name() {
    let service = json!({"name": "fn1", "functionConfig": {"name": "code", "runtime": "nodejs10"}});
    let error = case().refused(release(
        "greet",
        "3",
        json!({"type": "function", "services": [service]}),
    ));
    assert_eq!(
        error,
        "service fn1 wants runtime \"nodejs10\"; this node has python3"
    );
}

#[test]
fn a_job_runs_its_completions_and_init_services_run_once_before() {
    let body = json!({"workload": "job", "jobConfig": {"completions": 3, "parallelism": 2, "backoffLimit": 1},
        "initServices": [{"name": "prepare", "command": ["prepare"]}], "services": [{"name": "work", "command": ["work"]}]});
    let resolved = case()
        .resolve(&release("batch", "1", body).build())
        .unwrap();
    assert_eq!(
        resolved.services[0].kind,
        WorkloadKind::Job {
            parallelism: 2,
            backoff_limit: 1
        }
    );
    assert_eq!(resolved.services[0].instances.len(), 3);
    assert_eq!(
        resolved.init[0].kind,
        WorkloadKind::Job {
            parallelism: 1,
            backoff_limit: 6
        }
    );
    assert_eq!(resolved.shape.strategy, Strategy::Recreate);
    let unset = json!({"workload": "job", "jobConfig": {"completions": 0}, "services": [{"name": "work", "command": ["work"]}]});
    let resolved = case()
        .resolve(&release("batch", "1", unset).build())
        .unwrap();
    assert_eq!(
        resolved.services[0].kind,
        WorkloadKind::Job {
            parallelism: 1,
            backoff_limit: 6
        }
    );
    assert_eq!(resolved.services[0].instances.len(), 1);
}

#[test]
fn what_cannot_run_here_is_refused_with_what_to_do() {
    let mounted = |volumes: Value| {
        json!({"services": [{"name": "web", "command": ["run"], "volumeMounts": [{"name": "v1", "mountPath": "/v"}]}],
            "volumes": volumes})
    };
    let cases = [
        (json!({"type": "helm", "services": []}), "need Kubernetes"),
        (
            json!({"workload": "job", "jobConfig": {"schedule": "@daily"}, "services": []}),
            "a job with a schedule (\"@daily\") needs Kubernetes",
        ),
        (
            mounted(json!([{"name": "v1", "persistentVolumeClaim": {"claimName": "data"}}])),
            "\"v1\" is a PersistentVolumeClaim, which needs Kubernetes",
        ),
        (json!({"services": [{"name": "web"}]}), "has no program"),
        (mounted(json!([])), "which the application does not have"),
        (mounted(json!([{"name": "v1"}])), "exactly one of"),
        (
            mounted(json!([{"name": "v1", "config": {"name": "absent"}}])),
            "configuration \"absent\"",
        ),
        (
            mounted(json!([{"name": "v1", "secret": {"name": "absent"}}])),
            "secret \"absent\"",
        ),
        (
            json!({"services": [{"name": "WEB", "command": ["run"]}]}),
            "service name",
        ),
        (
            json!({"services": [{"name": "web", "command": ["run"], "ports": [{"hostPort": 70000}]}]}),
            "70000",
        ),
        (
            json!({"services": [{"name": "web", "command": ["run"], "resources": {"limits": {"memory": "much"}}}]}),
            "invalid limit: limit memory",
        ),
    ];
    for (body, part) in cases {
        let error = case().refused(release("shop", "7", body.clone()));
        assert!(error.contains(part), "{body}: {error}");
    }
}

#[test]
fn system_applications_run_in_a_namespace_of_their_own() {
    let builder = release(
        "broker",
        "1",
        json!({"services": [{"name": "broker", "command": ["run"]}]}),
    )
    .system();
    let resolved = case().resolve(&builder.build()).unwrap();
    assert_eq!(
        resolved.services[0].key.to_string(),
        "baetyl-edge-system.broker.1.broker"
    );
}

#[test]
fn a_working_directory_in_a_volume_is_that_of_the_instance() {
    let body = |dir: &str| {
        json!({"services": [{"name": "web", "command": ["run"], "workingDir": dir,
        "volumeMounts": [{"name": "v1", "mountPath": "/data"}]}], "volumes": [{"name": "v1", "emptyDir": {}}]})
    };
    let dir = |dir: &str| case().one(release("shop", "7", body(dir))).working_dir;
    assert_eq!(dir(""), None);
    assert_eq!(dir("/data/in"), Some("data/in".into()));
    assert_eq!(dir("/srv"), Some("/srv".into()));
    assert_eq!(dir("sub"), Some("sub".into()));
}
