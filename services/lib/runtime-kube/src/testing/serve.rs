//! What the fake answers: lists, watches, applies and deletions, as a real API server does them.

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Response};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, timeout_at};

use super::{Asked, State, Watching, respond, status, streamed};
use crate::client::Body;

impl State {
    pub(super) fn set(&mut self, path: &str, mut object: Value) {
        self.version += 1;
        let before = self.objects.get(path);
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = self.version.to_string().into();
        if metadata["uid"].is_null() {
            let uid = before.map_or_else(
                || format!("uid-{}", self.version).into(),
                |before| before["metadata"]["uid"].clone(),
            );
            metadata["uid"] = uid;
        }
        let kind = if before.is_some() {
            "MODIFIED"
        } else {
            "ADDED"
        };
        self.objects.insert(path.to_owned(), object.clone());
        self.tell(path, kind, object);
    }

    pub(super) fn delete(&mut self, path: &str) {
        self.version += 1;
        if let Some(mut object) = self.objects.remove(path) {
            object["metadata"]["resourceVersion"] = self.version.to_string().into();
            self.tell(path, "DELETED", object);
        }
    }

    fn tell(&mut self, path: &str, kind: &'static str, object: Value) {
        let list = path.rsplit_once('/').unwrap().0.to_owned();
        let watches = self.watches.iter().filter(|watching| watching.list == list);
        for watching in watches.filter(|watching| matches(&watching.selector, &object)) {
            let _ = watching.events.try_send(Ok(event(kind, &object)));
        }
        self.history.push((self.version, list, kind, object));
    }

    pub(super) fn serve(&mut self, asked: &Asked) -> Response<Body> {
        let path = asked.path.as_str();
        let selector = asked
            .query
            .get("labelSelector")
            .cloned()
            .unwrap_or_default();
        match asked.method {
            Method::GET if path == "/version" => respond(200, &json!({"gitVersion": "v1.34.0"})),
            Method::GET if path.contains("metrics.k8s.io") => self.get(path),
            Method::GET if asked.is_watch() => self.watch(path, selector, asked),
            Method::GET if is_list(path) => self.list(path, &selector, asked),
            Method::GET => self.get(path),
            Method::PATCH => self.patch(path, asked),
            Method::DELETE => self.serve_delete(path, asked),
            _ => respond(405, &status(405, "MethodNotAllowed", "not here")),
        }
    }

    fn get(&self, path: &str) -> Response<Body> {
        match self.objects.get(path) {
            Some(object) => respond(200, object),
            None => respond(404, &status(404, "NotFound", &format!("{path} not found"))),
        }
    }

    /// Pages have two objects: all lists of more are read in several.
    fn list(&self, path: &str, selector: &str, asked: &Asked) -> Response<Body> {
        let from: usize = asked
            .query
            .get("continue")
            .map_or(0, |next| next.parse().unwrap());
        let all: Vec<&Value> = self
            .objects
            .iter()
            .filter(|(key, object)| {
                key.rsplit_once('/').unwrap().0 == path && matches(selector, object)
            })
            .map(|(_, object)| object)
            .collect();
        let items: Vec<_> = all.iter().skip(from).take(2).collect();
        let next = if from + 2 < all.len() {
            (from + 2).to_string()
        } else {
            String::new()
        };
        respond(
            200,
            &json!({
                "metadata": {"resourceVersion": self.version.to_string(), "continue": next},
                "items": items,
            }),
        )
    }

    fn watch(&mut self, path: &str, selector: String, asked: &Asked) -> Response<Body> {
        let from: u64 = asked.query["resourceVersion"].parse().unwrap();
        if from < self.oldest {
            return respond(410, &status(410, "Expired", "too old resource version"));
        }
        let (events, receiver) = mpsc::channel(1000);
        for (version, list, kind, object) in &self.history {
            if *version > from && list == path && matches(&selector, object) {
                let _ = events.try_send(Ok(event(kind, object)));
            }
        }
        self.watches.push(Watching {
            list: path.to_owned(),
            selector,
            events,
        });
        let seconds = asked.query["timeoutSeconds"].parse().unwrap();
        let end = Instant::now() + Duration::from_secs(seconds);
        let bookmark = json!({"metadata": {"resourceVersion": self.version.to_string()}});
        let events = stream::unfold(receiver, move |mut receiver| {
            let bookmark = event("BOOKMARK", &bookmark);
            async move {
                // A real server sends a bookmark a minute, and ends when it was asked to.
                let next = end.min(Instant::now() + Duration::from_secs(60));
                match timeout_at(next, receiver.recv()).await {
                    Ok(event) => Some((event?, receiver)),
                    Err(_) if Instant::now() >= end => None,
                    Err(_) => Some((Ok(bookmark), receiver)),
                }
            }
        });
        Response::new(streamed(events))
    }

    fn patch(&mut self, path: &str, asked: &Asked) -> Response<Body> {
        let mut object = self.objects.get(path).cloned();
        if object.is_none() && asked.query.contains_key("force") {
            object = Some(json!({}));
        }
        let Some(mut object) = object else {
            return self.get(path);
        };
        if asked.query.contains_key("force") {
            // What a manager applied before and applies no more goes.
            object["data"].take();
        }
        merge(&mut object, &asked.body);
        if let (true, Some(manager)) = (
            asked.query.contains_key("force"),
            asked.query.get("fieldManager"),
        ) {
            let own =
                json!({"manager": manager, "operation": "Apply", "fieldsV1": fields(&asked.body)});
            let managers = object["metadata"]["managedFields"].take();
            let mut managers = managers.as_array().cloned().unwrap_or_default();
            managers.retain(|other| other["manager"] != own["manager"]);
            managers.push(own);
            object["metadata"]["managedFields"] = managers.into();
        }
        self.set(path, object.clone());
        respond(200, &self.objects[path])
    }

    fn serve_delete(&mut self, path: &str, asked: &Asked) -> Response<Body> {
        let Some(object) = self.objects.get(path) else {
            return self.get(path);
        };
        let metadata = &object["metadata"];
        for field in ["uid", "resourceVersion"] {
            let wanted = &asked.body["preconditions"][field];
            if !wanted.is_null() && *wanted != metadata[field] {
                return respond(
                    409,
                    &status(409, "Conflict", "the precondition does not hold"),
                );
            }
        }
        if metadata["finalizers"].is_array() {
            let mut ending = object.clone();
            ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            self.set(path, ending);
        } else {
            self.delete(path);
        }
        respond(200, &json!({"kind": "Status", "status": "Success"}))
    }
}

/// Lists end with a plural, in a namespace or of the cluster.
fn is_list(path: &str) -> bool {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let rest = if parts[0] == "api" {
        &parts[2..]
    } else {
        &parts[3.min(parts.len())..]
    };
    matches!(rest, [_] | ["namespaces", _, _])
}

fn event(kind: &str, object: &Value) -> Bytes {
    Bytes::from(format!("{}\n", json!({"type": kind, "object": object})))
}

/// The fields of what is applied, as Kubernetes names them; lists are one field.
fn fields(body: &Value) -> Value {
    let Some(all) = body.as_object() else {
        return json!({});
    };
    let names = all
        .iter()
        .map(|(name, value)| (format!("f:{name}"), fields(value)));
    Value::Object(names.collect())
}

fn merge(target: &mut Value, patch: &Value) {
    match patch {
        Value::Object(fields) => {
            if !target.is_object() {
                *target = json!({});
            }
            for (name, value) in fields {
                merge(&mut target[name.as_str()], value);
            }
        }
        plain => *target = plain.clone(),
    }
}

/// Label selectors of the forms that are used here.
fn matches(selector: &str, object: &Value) -> bool {
    let labels = &object["metadata"]["labels"];
    selector
        .split(',')
        .filter(|part| !part.is_empty())
        .all(|part| {
            if let Some(label) = part.strip_prefix('!') {
                labels[label].is_null()
            } else if let Some((label, value)) = part.split_once('=') {
                labels[label] == value
            } else {
                !labels[part].is_null()
            }
        })
}

pub(super) fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let hex = std::str::from_utf8(&tail[..2]).unwrap();
            bytes.push(u8::from_str_radix(hex, 16).unwrap());
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).unwrap()
}
