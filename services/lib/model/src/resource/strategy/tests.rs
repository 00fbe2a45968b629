use super::*;

#[test]
fn what_cannot_run_twice_is_recreated_and_the_rest_is_rolled() {
    let cases = [
        (r#"{"services":[{"name":"a1"}]}"#, Strategy::Rolling),
        (
            r#"{"services":[{"name":"a1","ports":[{"containerPort":80}]}]}"#,
            Strategy::Rolling,
        ),
        (
            r#"{"services":[{"name":"a1","ports":[{"hostPort":80}]}]}"#,
            Strategy::Recreate,
        ),
        (
            r#"{"hostNetwork":true,"services":[{"name":"a1","ports":[{"containerPort":80}]}]}"#,
            Strategy::Recreate,
        ),
        (
            r#"{"hostNetwork":true,"mode":"native","services":[{"name":"a1","ports":[{"containerPort":80}]}]}"#,
            Strategy::Rolling,
        ),
        (
            r#"{"hostNetwork":true,"services":[{"name":"a1"}]}"#,
            Strategy::Rolling,
        ),
        (
            r#"{"workload":"statefulset","services":[{"name":"a1"}]}"#,
            Strategy::Recreate,
        ),
        (
            r#"{"labels":{"baetyl-update-strategy":"recreate"},"services":[{"name":"a1"}]}"#,
            Strategy::Recreate,
        ),
        (
            r#"{"labels":{"baetyl-update-strategy":"rolling"},"services":[{"name":"a1","ports":[{"hostPort":80}]}]}"#,
            Strategy::Recreate,
        ),
        (
            r#"{"volumes":[{"name":"db","hostPath":{"path":"/db"}}],
                "services":[{"name":"a1","volumeMounts":[{"name":"db","mountPath":"/db"}]}]}"#,
            Strategy::Recreate,
        ),
        (
            r#"{"volumes":[{"name":"db","hostPath":{"path":"/db"}}],
                "services":[{"name":"a1","volumeMounts":[{"name":"db","mountPath":"/db","readOnly":true}]}]}"#,
            Strategy::Rolling,
        ),
        (
            r#"{"volumes":[{"name":"db","persistentVolumeClaim":{"claimName":"db"}}],
                "services":[{"name":"a1","volumeMounts":[{"name":"db","mountPath":"/db"}]}]}"#,
            Strategy::Recreate,
        ),
        (
            r#"{"volumes":[{"name":"db","persistentVolumeClaim":{"claimName":"db","readOnly":true}}],
                "services":[{"name":"a1","volumeMounts":[{"name":"db","mountPath":"/db"}]}]}"#,
            Strategy::Rolling,
        ),
        (
            r#"{"labels":{"baetyl-update-strategy":"rolling"},"volumes":[{"name":"db","hostPath":{"path":"/db"}}],
                "services":[{"name":"a1","volumeMounts":[{"name":"db","mountPath":"/db"}]}]}"#,
            Strategy::Rolling,
        ),
    ];
    for (json, expected) in cases {
        let app: Application = serde_json::from_str(json).unwrap();
        assert_eq!(app.strategy(), expected, "{json}");
    }
}

#[test]
fn an_application_may_say_how_long_it_takes() {
    for (text, seconds) in [
        ("90s", Some(90)),
        ("20m", Some(1200)),
        ("24h", Some(86_400)),
        ("25h", None),
        ("0s", None),
        ("+5s", None),
        ("90", None),
        ("s", None),
        ("", None),
        ("9ß", None),
        ("99999999999999999999h", None),
    ] {
        let mut app = Application::default();
        let label = crate::resource::label::PROGRESS_DEADLINE;
        app.labels.insert(label.to_owned(), text.to_owned());
        let told = app.progress_deadline().map(|time| time.as_secs());
        assert_eq!(told, seconds, "{text}");
    }
    assert_eq!(Application::default().progress_deadline(), None);
}
