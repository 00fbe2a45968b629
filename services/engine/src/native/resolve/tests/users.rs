//! Which user a service runs as, and where it finds its certificates.

use super::*;

#[test]
fn an_application_runs_as_its_user_unless_it_asks_for_all_rights() {
    let mut case = case();
    case.user = Some(RunAs {
        uid: 70_001,
        gid: 70_001,
    });
    let plain = case.one(app(json!({"name": "web", "command": ["run"]})));
    assert_eq!(plain.user, case.user);
    assert_eq!(plain.env["HOME"], "/d/engine/run/baetyl-edge/shop/7/web/1");
    let home = json!([{"name": "HOME", "value": "/h"}]);
    let own = case.one(app(json!({"name": "web", "command": ["run"], "env": home})));
    assert_eq!(own.env["HOME"], "/h");
    let all = json!({"name": "web", "command": ["run"], "security": {"privileged": true}});
    let privileged = case.one(app(all));
    assert_eq!(privileged.user, None);
    assert!(!privileged.env.contains_key("HOME"));
}

#[test]
fn functions_keep_the_user_of_engine_when_nobody_else_can_start_their_runtime() {
    let mut case = case();
    case.user = Some(RunAs {
        uid: 70_001,
        gid: 70_001,
    });
    let function = || {
        let service = json!({"name": "fn1", "functionConfig": {"name": "code", "runtime": "python3"},
            "functions": [{"name": "hello", "handler": "index.hello"}]});
        let body = json!({"type": "function", "mode": "native", "services": [service]});
        release("greet", "1", body).configuration("code", json!({"index.py": ""}))
    };
    assert_eq!(case.one(function()).user, case.user);
    case.place.private_runtimes.insert("python3".to_owned());
    assert_eq!(case.one(function()).user, None);
}

#[test]
fn certificates_lie_where_programs_of_v2_look_for_them_unless_something_else_does() {
    let mut case = case();
    let given = Certificates {
        ca: "ca".into(),
        certificate: "crt".into(),
        key: "key".into(),
    };
    case.certificates.insert("web".to_owned(), given);
    let path = "/var/lib/baetyl/system/certs";
    let plain = case.one(app(json!({"name": "web", "command": ["run"]})));
    let MountSource::Secret(files) = &mount(&plain, path).source else {
        panic!("no secret")
    };
    let files: Vec<_> = files
        .iter()
        .map(|file| (file.path.as_str(), text(&file.content)))
        .collect();
    let expected = [("ca.pem", "ca"), ("crt.pem", "crt"), ("key.pem", "key")];
    assert_eq!(files, expected.map(|(name, text)| (name, text.to_owned())));
    let other = case.one(app(json!({"name": "db", "command": ["run"]})));
    assert!(other.mounts.is_empty());
    let mounted = json!({"name": "web", "command": ["run"],
        "volumeMounts": [{"name": "own", "mountPath": "var/lib/baetyl/system"}]});
    let body = json!({"mode": "native", "services": [mounted], "volumes": [{"name": "own", "emptyDir": {}}]});
    assert_eq!(case.one(release("shop", "7", body)).mounts.len(), 1);
}
