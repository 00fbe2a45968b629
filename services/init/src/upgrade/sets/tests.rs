use std::time::Duration;

use baetyl_model::upgrade::Core;

use super::*;

fn wanted(class: &str) -> Wanted {
    Wanted {
        to: Core {
            version: "0.2.0".to_owned(),
            class: class.to_owned(),
            registry: "r:5000/b".to_owned(),
        },
        pull_secret: None,
        deadline: Duration::from_secs(1),
    }
}

fn facts() -> Value {
    let pin = format!("sha256:{}", "0".repeat(64));
    json!({"data": {"activate-url": "https://c:9003", "ca-pin": pin}})
}

#[test]
fn what_belongs_to_the_whole_cluster_is_looked_at_and_the_rest_applied() {
    for class in Class::ALL {
        let set = Set::render(&wanted(class.as_str()), Some(&facts())).unwrap();
        assert!(
            set.verified
                .iter()
                .all(|object| object.namespace.is_empty())
        );
        assert!(
            set.applied
                .iter()
                .all(|object| !object.namespace.is_empty())
        );
        let is_job = |object: &&Object| object.kind == "Job";
        let mut jobs = set.applied.iter().filter(is_job);
        assert!(jobs.all(|job| job.name != ACTIVATION));
        let cloud = set.applied.iter().find(|object| object.name == CLOUD);
        assert_eq!(cloud.unwrap().body["data"], facts()["data"]);
        let known = known(&wanted(class.as_str()), &set.applied);
        let all = known
            .iter()
            .chain(&set.applied)
            .map(key)
            .collect::<BTreeSet<_>>();
        assert_eq!(all.len(), known.len(), "each once, and all of this class");
    }
}

#[test]
fn a_class_this_version_lacks_and_a_node_without_a_cloud_are_told_of() {
    let error = Set::render(&wanted("node-2gb"), Some(&facts())).unwrap_err();
    assert!(error.to_string().contains("is not a node class"));
    let error = Set::render(&wanted("k3s"), None).unwrap_err();
    assert_eq!(error, SetError::NoCloud);
}

#[test]
fn more_than_is_wanted_is_no_difference_and_less_is_told_by_its_place() {
    let wanted = json!({"rules": [{"verbs": ["get"], "names": []}], "value": 1});
    let at = |live: Value| difference(&wanted, &live);
    assert_eq!(
        at(json!({"rules": [{"verbs": ["get"]}], "value": 1, "uid": "x"})),
        None
    );
    let more = json!({"rules": [{"verbs": ["get", "list"]}], "value": 1});
    assert_eq!(at(more).as_deref(), Some("/rules/0/verbs"));
    assert_eq!(at(json!({"rules": []})).as_deref(), Some("/rules"));
    let other = json!({"rules": [{"verbs": ["get"]}], "value": 2});
    assert_eq!(at(other).as_deref(), Some("/value"));
}

#[test]
fn claims_are_never_left_over() {
    let claim = |kind: &str| Object {
        kind: kind.to_owned(),
        ..cloud()
    };
    let before = [claim("PersistentVolumeClaim"), claim("Service"), cloud()];
    let left = left_over(&before, &[cloud()]);
    assert_eq!(left, [&before[1]]);
}

#[test]
fn what_an_administrator_has_to_do_is_said() {
    let set = Set::render(&wanted("node-standard"), Some(&facts())).unwrap();
    let object = &set.verified[0];
    verify(object, Some(&object.body)).unwrap();
    let error = verify(object, None).unwrap_err();
    assert!(
        error.contains("is not there") && error.contains("run the install command"),
        "{error}"
    );
}
