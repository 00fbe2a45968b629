//! Baetyl v2's recorded answers against ours. `v2-samples.jsonl` holds requests in order with what v2 answered; where we
//! answer otherwise on purpose, `ours` says what and why.

use super::*;

/// Fields whose value is ours to choose; they must be there and not be empty.
const OWN_VALUES: [&str; 4] = ["version", "createTime", "updateTime", "namespace"];

/// Copies v2 makes for its older clients, and system applications we have no equivalent of.
fn is_left_out(path: &str) -> bool {
    let service = path.contains("ervices[");
    (service
        && [".type", ".jobConfig", ".hostNetwork"]
            .iter()
            .any(|field| path.ends_with(field)))
        || path.ends_with(".sysApps")
        || path.contains(".desire.sysapps")
        || path.ends_with(".certificate.version")
        || path.ends_with(".total")
}

/// Everything v2 shows must be in our answer.
fn compare(path: &str, theirs: &Value, ours: &Value, wrong: &mut Vec<String>) {
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => {
            for (key, value) in theirs {
                let path = format!("{path}.{key}");
                let own = ours.get(key).unwrap_or(&Value::Null);
                if is_left_out(&path) {
                    continue;
                }
                if OWN_VALUES.contains(&key.as_str())
                    || path.starts_with(".metadata.") && value.is_string()
                {
                    if own.as_str().is_none_or(str::is_empty) {
                        wrong.push(format!("{path} is {own}"));
                    }
                } else {
                    compare(&path, value, own, wrong);
                }
            }
        }
        (Value::Array(theirs), Value::Array(ours)) if theirs.len() == ours.len() => {
            for (index, (theirs, ours)) in theirs.iter().zip(ours).enumerate() {
                compare(&format!("{path}[{index}]"), theirs, ours, wrong);
            }
        }
        _ if theirs == ours => {}
        _ => wrong.push(format!("{path} is {ours}, v2 has {theirs}")),
    }
}

#[tokio::test]
async fn clients_of_baetyl_v2_find_its_paths_fields_and_statuses() {
    let c = cloud().await;
    secrets::create_certificate(&c, "cert1").await;
    let mut wrong = Vec::new();
    for line in include_str!("v2-samples.jsonl").lines() {
        let sample: Value = serde_json::from_str(line).unwrap();
        let method: Method = sample["method"].as_str().unwrap().parse().unwrap();
        let path = sample["path"].as_str().unwrap();
        let body = sample["body"].as_str().unwrap_or_default().to_owned();
        let answer = c.call_with(method.clone(), path, &[], body).await;
        let (status, expected) = match sample.get("ours") {
            Some(ours) => (&ours["status"], json!({"code": ours["code"]})),
            None => (&sample["status"], sample["answer"].clone()),
        };
        let mut here = Vec::new();
        if *status != answer.status.as_u16() {
            here.push(format!("status {}, expected {status}", answer.status));
        } else if expected["code"] != Value::Null || !answer.status.is_client_error() {
            compare("", &expected, &answer.body, &mut here);
        }
        wrong.extend(here.iter().map(|what| {
            format!(
                "{method} {path} {}: {what}\n    {}",
                sample["note"], answer.text
            )
        }));
    }
    assert!(
        wrong.is_empty(),
        "{} differences:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
