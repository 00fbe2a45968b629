//! What cannot run on Kubernetes is refused with a sentence that says what to do.

use super::*;

fn refused(case: &Case) -> String {
    let error = match case.render() {
        Ok(rendered) => panic!("{case:?} gave {rendered:?}"),
        Err(error) => error,
    };
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn all_refused(cases: Vec<(Case, &str)>) {
    for (case, part) in cases {
        let text = refused(&case);
        assert!(text.contains(part), "{case:?}: {text:?} lacks {part:?}");
    }
}

fn mounted(volume: Value) -> Case {
    Case::service(json!({"volumeMounts": [{"name": "v1", "mountPath": "/v"}]}))
        .with(json!({"volumes": [volume]}))
}

#[test]
fn kinds_workloads_and_names() {
    let named = |name: &str, fields: Value| {
        Case::service(json!({"ports": [{"containerPort": 80}]}))
            .with(json!({"name": name}))
            .with(fields)
    };
    let system = |name: &str| Case {
        system: true,
        ..named(name, json!({}))
    };
    all_refused(vec![
        (
            Case::service(json!({})).with(json!({"workload": "custom"})),
            "workload \"custom\" is not one of deployment",
        ),
        (Case::app(json!({"type": "android"})), "type \"android\""),
        (Case::app(json!({})), "has no services"),
        (Case::service(json!({"name": "WEB"})), "service name"),
        (
            Case::service(json!({"name": "baetyl-objects"})),
            "one of Baetyl's own",
        ),
        (
            Case::service(json!({})).with(json!({"initServices": [{"name": "web", "image": "i"}]})),
            "service \"web\" is there twice",
        ),
        (Case::service(json!({"image": " "})), "has no image"),
        (
            named("my.shop", json!({})),
            "Service \"my.shop\" cannot be used",
        ),
        (named("1shop", json!({})), "beginning with a letter"),
        (
            Case::service(json!({"ports": [{"containerPort": 80, "serviceType": "NodePort"}]}))
                .with(json!({"name": "a".repeat(55)})),
            "at most 63",
        ),
        (
            named(&"a".repeat(53), json!({"workload": "statefulset"})),
            "at most 52 characters",
        ),
        (
            named(
                &"a".repeat(53),
                json!({"workload": "job", "jobConfig": {"schedule": "@daily"}}),
            ),
            "at most 52 characters",
        ),
        (
            named("shop", json!({"version": "7-"})),
            "it becomes a label",
        ),
        (
            named("shop", json!({"version": "7".repeat(64)})),
            "it becomes a label",
        ),
        (
            system("baetyl-node"),
            "\"baetyl-node\" is one of Baetyl's own",
        ),
        (
            system("baetyl-function-x7k2"),
            "\"baetyl-function\" is one of Baetyl's own",
        ),
        (
            Case::service(json!({}))
                .with(json!({"workload": "job", "jobConfig": {"schedule": "5 minutes"}})),
            "jobConfig.schedule: ",
        ),
    ]);
}

#[test]
fn volumes_and_mounts() {
    let twice = json!([{"name": "v1", "emptyDir": {}}, {"name": "v1", "emptyDir": {}}]);
    let dots = json!([{"name": "v-1", "emptyDir": {}}, {"name": "v.1", "emptyDir": {}}]);
    let own = json!([{"name": "baetyl-objects", "emptyDir": {}}]);
    let paths = json!({"volumeMounts": [
        {"name": "v1", "mountPath": "/v"}, {"name": "v1", "mountPath": "/v/", "subPath": "x"}]});
    all_refused(vec![
        (
            mounted(json!({"name": "v2", "emptyDir": {}})),
            "mounts volume \"v1\"",
        ),
        (mounted(json!({"name": "v1"})), "exactly one of"),
        (
            mounted(json!({"name": "v1", "emptyDir": {}, "hostPath": {"path": "/x"}})),
            "exactly one of",
        ),
        (
            mounted(json!({"name": "v1", "certificate": {"name": "c1"}})),
            "exactly one of",
        ),
        (
            mounted(json!({"name": "v1", "config": {"name": "absent"}})),
            "configuration \"absent\", which did not come",
        ),
        (
            mounted(json!({"name": "v1", "secret": {"name": "absent"}})),
            "secret \"absent\", which did not come",
        ),
        (
            mounted(json!({"name": "v1", "hostPath": {"path": "a/../../b"}})),
            "leave out \"..\"",
        ),
        (
            mounted(json!({"name": "v1", "hostPath": {"path": "/a/../b"}})),
            "leave out \"..\"",
        ),
        (
            mounted(json!({"name": "v1", "hostPath": {}})),
            "host path \"\"",
        ),
        (
            mounted(json!({"name": "v1", "hostPath": {"path": "/a", "type": "Folder"}})),
            "host path type \"Folder\"",
        ),
        (
            mounted(json!({"name": "v1", "emptyDir": {"sizeLimit": "big"}})),
            "sizeLimit of volume v1: \"big\" is not a quantity",
        ),
        (
            mounted(json!({"name": "v1", "persistentVolumeClaim": {"claimName": "Data"}})),
            "claimName \"Data\"",
        ),
        (
            Case::service(json!({})).with(json!({"volumes": twice})),
            "volume \"v1\" is there twice",
        ),
        (
            Case::service(json!({})).with(json!({"volumes": dots})),
            "is there twice",
        ),
        (
            Case::service(json!({})).with(json!({"volumes": own})),
            "one of Baetyl's own",
        ),
        (
            Case::service(paths).with(json!({"volumes": [{"name": "v1", "emptyDir": {}}]})),
            "mounts two volumes at /v",
        ),
        (
            mounted(json!({"name": "v1", "config": {"name": "big"}}))
                .configuration("big", json!({"a": "x".repeat(1024 * 1024)})),
            "Kubernetes holds at most 1048576",
        ),
        (
            Case {
                secrets: vec![json!({"name": "reg", "labels": {"secret-type": "registry"}})],
                ..mounted(json!({"name": "v1", "secret": {"name": "reg"}}))
            },
            "registry \"reg\" has no address",
        ),
    ]);
}

#[test]
fn ports() {
    let ports = |ports: Value| Case::service(json!({"ports": ports}));
    let two = |one: Value, other: Value| {
        Case::app(json!({"services": [
            {"name": "one", "image": "i", "ports": [one]},
            {"name": "two", "image": "i", "ports": [other]},
        ]}))
    };
    let host = json!([{"containerPort": 80, "hostPort": 80}]);
    let scale = json!({"minReplicas": 1, "maxReplicas": 2, "metrics": [
        {"resource": {"name": "cpu", "targetType": "Utilization", "averageUtilization": 50}}]});
    all_refused(vec![
        (
            ports(host.clone()).with(json!({"replica": 2})),
            "host port 80 and 2 instances",
        ),
        (
            ports(host.clone()).with(json!({"autoScaleCfg": scale})),
            "host port 80 and 2 instances",
        ),
        (
            ports(host).with(json!({"workload": "job", "jobConfig": {"parallelism": 2}})),
            "host port 80 and 2 instances",
        ),
        (ports(json!([{"containerPort": 0}])), "has port 0"),
        (
            ports(json!([{"containerPort": 80, "hostPort": 70000}])),
            "has port 70000",
        ),
        (ports(json!([{"containerPort": -1}])), "has port -1"),
        (
            ports(json!([{"containerPort": 80, "protocol": "ICMP"}])),
            "protocol \"ICMP\"",
        ),
        (
            ports(
                json!([{"containerPort": 80, "hostPort": 81}, {"containerPort": 80, "hostPort": 82}]),
            ),
            "port 80/TCP is used by two",
        ),
        (
            ports(json!([{"containerPort": 80, "hostPort": 81}]))
                .with(json!({"hostNetwork": true})),
            "both are the same port",
        ),
        (
            two(
                json!({"containerPort": 80, "hostPort": 8080}),
                json!({"containerPort": 81, "hostPort": 8080}),
            ),
            "host port 8080/TCP is used by two",
        ),
        (
            two(json!({"containerPort": 80}), json!({"containerPort": 80}))
                .with(json!({"hostNetwork": true})),
            "host port 80/TCP is used by two",
        ),
        (
            two(
                json!({"containerPort": 80, "serviceType": "NodePort", "nodePort": 30000}),
                json!({"containerPort": 81, "serviceType": "NodePort", "nodePort": 30000}),
            ),
            "node port 30000/TCP is used by two",
        ),
        (
            two(
                json!({"containerPort": 80, "serviceType": "NodePort", "nodePort": 30000}),
                json!({"containerPort": 80, "serviceType": "NodePort", "nodePort": 30001}),
            ),
            "port 80/TCP is used by two",
        ),
    ]);
}

#[test]
fn amounts_and_scaling() {
    let resources = |resources: Value| Case::service(json!({"resources": resources}));
    let scale = |fields: Value| {
        let mut scale = json!({"minReplicas": 1, "maxReplicas": 2, "metrics": [
            {"type": "Resource", "resource": {"name": "cpu", "targetType": "Utilization", "averageUtilization": 50}}]});
        scale
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        Case::service(json!({})).with(json!({"autoScaleCfg": scale}))
    };
    let metric = |resource: Value| scale(json!({"metrics": [{"resource": resource}]}));
    all_refused(vec![
        (
            resources(json!({"limits": {"memory": "much"}})),
            "limits of memory of service web: \"much\" is not a quantity",
        ),
        (resources(json!({"limits": {"cpu": "-1"}})), "is negative"),
        (
            resources(json!({"limits": {"gpu": "1"}})),
            "e.g. nvidia.com/gpu",
        ),
        (
            resources(json!({"limits": {"nvidia.com/gpu": "0.5"}})),
            "not a whole number",
        ),
        (
            resources(json!({"requests": {"nvidia.com/gpu": "1"}})),
            "had by a limit",
        ),
        (
            resources(
                json!({"requests": {"nvidia.com/gpu": "1"}, "limits": {"nvidia.com/gpu": "2"}}),
            ),
            "must equal the limit",
        ),
        (
            resources(json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1500m"}})),
            "2 is more than the limit of 1500m",
        ),
        (
            scale(json!({"minReplicas": 0})),
            "minReplicas must be at least 1",
        ),
        (
            scale(json!({"maxReplicas": 0})),
            "minReplicas must be at least 1",
        ),
        (scale(json!({"metrics": []})), "at least one metric"),
        (
            scale(json!({"metrics": [{"type": "Pods"}]})),
            "of type Resource",
        ),
        (metric(json!({"name": "disk"})), "\"disk\" is not one of"),
        (
            metric(json!({"name": "cpu", "targetType": "Utilization"})),
            "averageUtilization must be",
        ),
        (
            metric(json!({"name": "cpu", "targetType": "Value", "value": "1"})),
            "use targetType AverageValue",
        ),
        (metric(json!({"name": "cpu"})), "targetType \"\""),
        (
            metric(json!({"name": "cpu", "targetType": "AverageValue", "averageValue": "x"})),
            "\"x\" is not a quantity",
        ),
        (
            scale(json!({})).with(json!({"workload": "daemonset"})),
            "a daemonset cannot be scaled",
        ),
    ]);
}

#[test]
fn what_a_pod_has_once_and_what_it_cannot_have() {
    let two = |one: Value, other: Value| {
        let mut services = json!([{"name": "one", "image": "i"}, {"name": "two", "image": "i"}]);
        for (service, fields) in services
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .zip([one, other])
        {
            service
                .as_object_mut()
                .unwrap()
                .extend(fields.as_object().unwrap().clone());
        }
        Case::app(json!({"services": services}))
    };
    let probe = |probe: Value| Case::service(json!({"livenessProbe": probe}));
    all_refused(vec![
        (
            two(json!({"hostname": "a"}), json!({"hostname": "b"})),
            "host name \"a\" and \"b\"",
        ),
        (
            two(json!({"runtime": "a"}), json!({"runtime": "b"})),
            "runtime \"a\" and \"b\"",
        ),
        (Case::service(json!({"hostname": "a.b"})), "a host name has"),
        (
            Case::service(json!({})).with(json!({"dnsPolicy": "None"})),
            "name servers",
        ),
        (
            Case::service(json!({})).with(json!({"dnsPolicy": "Any"})),
            "dnsPolicy \"Any\"",
        ),
        (
            Case::service(json!({})).with(json!({"nodeSelector": "a=b,,"})),
            "nodeSelector cannot be read",
        ),
        (probe(json!({})), "livenessProbe: exactly one of"),
        (
            probe(json!({"exec": {"command": ["x"]}, "tcpSocket": {"port": 1}})),
            "livenessProbe: exactly one of",
        ),
        (probe(json!({"exec": {}})), "exec.command is needed"),
        (
            probe(json!({"httpGet": {"port": "http"}})),
            "\"http\" is not a port number",
        ),
        (
            probe(json!({"tcpSocket": {"port": 70000}})),
            "\"70000\" is not a port number",
        ),
        (
            probe(json!({"grpc": {"port": 0}})),
            "\"0\" is not a port number",
        ),
    ]);
}

#[test]
fn what_this_node_does_not_offer() {
    let function = Case::app(json!({"type": "function", "services": [
        {"name": "hello", "functionConfig": {"name": "code", "runtime": "cobol"}}]}));
    all_refused(vec![(
        function.clone(),
        "runtime \"cobol\"; this node has python3",
    )]);
    let bare = Place::default();
    let error = |case: &Case| case.render_at(&bare).unwrap_err().to_string();
    assert!(
        error(&function).contains("this node has none"),
        "{}",
        error(&function)
    );
    let cases = cases();
    assert!(error(&cases["objects"]).contains("needs the image baetyl-sync"));
    let without_objects = Place {
        helm_image: String::new(),
        ..place()
    };
    let error = cases["helm"].render_at(&without_objects).unwrap_err();
    assert!(
        error.to_string().contains("needs the image baetyl-helm"),
        "{error}"
    );
}

#[test]
fn an_object_that_did_not_come_is_missed() {
    let mut release =
        Case::app(json!({"services": []})).configuration("c1", json!({"_object_a": "{}"}));
    release = release.with(json!({
        "services": [{"name": "web", "image": "i", "volumeMounts": [{"name": "v1", "mountPath": "/v"}]}],
        "volumes": [{"name": "v1", "config": {"name": "c1"}}],
    }));
    assert!(release.render().is_ok());
    let app: Application = read(&release.app);
    let mut desired = DesiredApp {
        app: AppRef {
            name: AppName::new("shop").unwrap(),
            version: Version::new("7").unwrap(),
            digest: digest("x"),
            size: 1,
        },
        resources: Vec::new(),
        objects: Vec::new(),
        system: false,
    };
    let configurations = release.read_configurations(&mut desired);
    desired.objects.clear();
    let error = render(&Request {
        release: &desired,
        app: &app,
        configurations: &configurations,
        secrets: &BTreeMap::new(),
        node: &Node::default(),
        place: &place(),
    })
    .unwrap_err();
    assert!(error.to_string().contains("names object \"a\""), "{error}");
}
