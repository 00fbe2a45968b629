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
