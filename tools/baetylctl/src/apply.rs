//! `apply -f` and `delete -f`: documents in, requests out; everything is checked before the first write.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value};

use crate::client::{Client, encode};
use crate::document::{self, Document};
use crate::output::{self, Format};
use crate::resources::Kind;
use crate::validate::{self, Reference, Wanted};

/// A document, and what the cloud has of that name.
struct Step {
    document: Document,
    /// The entity tag of the one that is there, if it has one; None: it is to be created.
    existing: Option<Option<String>>,
}

/// Creates or updates everything the files describe.
///
/// # Errors
/// When a document is wrong or references something that is neither among the documents nor in the cloud: nothing was
/// written then. When the cloud refuses one all the same, earlier ones are written; the message says which it was.
pub(crate) async fn apply(
    client: &Client,
    files: &[String],
    prune: Option<&str>,
    format: Format,
) -> Result<()> {
    let mut documents = document::read(files)?;
    let prune = prune.map(parse_label).transpose()?;
    if let Some((key, value)) = &prune {
        for document in &mut documents {
            set_label(&mut document.body, key, value).with_context(|| document.to_string())?;
        }
    }
    let steps = plan(client, documents).await?;
    for step in &steps {
        write(client, step, format).await?;
    }
    match prune {
        Some((key, value)) => remove_others(client, &steps, &format!("{key}={value}")).await,
        None => Ok(()),
    }
}

/// Looks what is there, and names everything that speaks against the documents.
async fn plan(client: &Client, documents: Vec<Document>) -> Result<Vec<Step>> {
    let mut faults = Vec::new();
    let mut steps = Vec::with_capacity(documents.len());
    for document in documents {
        let found = client.find(&document.kind.path(&document.name)).await?;
        let existing = found.map(|(_, tag)| tag);
        for mistake in validate::mistakes(&document, existing.is_some()) {
            faults.push(format!("{document}: {mistake}"));
        }
        steps.push(Step { document, existing });
    }
    let mut runtimes = None;
    for step in &steps {
        for reference in validate::references(&step.document) {
            if !exists(client, &steps, &reference, &mut runtimes).await? {
                let Reference {
                    field,
                    wanted,
                    name,
                } = reference;
                let place = "among the documents or in the cloud";
                faults.push(format!(
                    "{}: {field}: there is no {wanted} {name:?} {place}",
                    step.document
                ));
            }
        }
    }
    if !faults.is_empty() {
        bail!("nothing was written:\n{}", faults.join("\n"));
    }
    Ok(steps)
}

/// Whether what is referenced will be there when it is wanted. `runtimes`: the cloud's, once it was asked for them.
async fn exists(
    client: &Client,
    steps: &[Step],
    reference: &Reference,
    runtimes: &mut Option<Value>,
) -> Result<bool> {
    let name = &reference.name;
    match reference.wanted {
        Wanted::Resource(kinds) => {
            let described = steps
                .iter()
                .any(|step| kinds.contains(&step.document.kind) && step.document.name == *name);
            if described {
                return Ok(true);
            }
            for kind in kinds {
                if client.find(&kind.path(&encode(name))).await?.is_some() {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Wanted::Object => Ok(client
            .find(&format!("/v1/objects/{}", encode(name)))
            .await?
            .is_some()),
        Wanted::Runtime => {
            let known = match runtimes {
                Some(known) => known,
                None => runtimes.insert(client.get("/v1/functions").await?),
            };
            Ok(known["runtimes"].get(name).is_some())
        }
    }
}

async fn write(client: &Client, step: &Step, format: Format) -> Result<()> {
    let document = &step.document;
    let body = Value::Object(document.body.clone());
    let (answer, done) = match &step.existing {
        None => {
            let path = format!("{}?fieldValidation=Strict", document.kind.list_path());
            (client.post(&path, &body).await, "created")
        }
        Some(tag) => {
            let path = document.kind.path(&document.name);
            let path = format!("{path}?fieldValidation=Strict");
            (client.put(&path, &body, tag.as_deref()).await, "configured")
        }
    };
    let answer = answer.with_context(|| document.to_string())?;
    match format {
        Format::Table | Format::Wide => say!("{document} {done}"),
        Format::Json | Format::Yaml => {
            write_out!("{}", output::render(document.kind, &answer, format)?);
        }
    }
    Ok(())
}

/// Deletes everything the files describe, applications first.
///
/// # Errors
/// When a document is wrong or the cloud refuses a deletion.
pub(crate) async fn delete(client: &Client, files: &[String]) -> Result<()> {
    for document in document::read(files)?.iter().rev() {
        client.delete(&document.kind.path(&document.name)).await?;
        say!("{document} deleted");
    }
    Ok(())
}

async fn remove_others(client: &Client, steps: &[Step], selector: &str) -> Result<()> {
    let kept: BTreeSet<(Kind, &str)> = steps
        .iter()
        .map(|step| (step.document.kind, step.document.name.as_str()))
        .collect();
    for kind in Kind::ALL.into_iter().rev() {
        let list = client
            .get(&format!(
                "{}?selector={}",
                kind.list_path(),
                encode(selector)
            ))
            .await?;
        for item in list["items"].as_array().into_iter().flatten() {
            let name = item["name"].as_str().unwrap_or_default();
            if !kept.contains(&(kind, name)) {
                client.delete(&kind.path(name)).await?;
                say!("{kind}/{name} pruned");
            }
        }
    }
    Ok(())
}

fn parse_label(label: &str) -> Result<(String, String)> {
    let (key, value) = label
        .split_once('=')
        .with_context(|| format!("--prune wants key=value, not {label:?}"))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Labels the body; labels that are left out or `null` are a map all the same.
fn set_label(body: &mut Map<String, Value>, key: &str, value: &str) -> Result<()> {
    let labels = body.entry("labels").or_insert(Value::Null);
    if labels.is_null() {
        *labels = Value::Object(Map::new());
    }
    match labels {
        Value::Object(labels) => {
            labels.insert(key.to_owned(), Value::from(value));
            Ok(())
        }
        other => bail!("labels is a map of texts, not {other}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn labelled(body: Value) -> Result<Value> {
        let Value::Object(mut body) = body else {
            bail!("not a map")
        };
        set_label(&mut body, "set", "shop")?;
        Ok(Value::Object(body))
    }

    #[test]
    fn the_label_of_a_set_joins_the_labels_or_makes_them() {
        for (given, expected) in [
            (json!({}), json!({"set": "shop"})),
            (json!({"labels": null}), json!({"set": "shop"})),
            (
                json!({"labels": {"a": "b"}}),
                json!({"a": "b", "set": "shop"}),
            ),
        ] {
            assert_eq!(labelled(given).unwrap()["labels"], expected);
        }
    }

    #[test]
    fn labels_that_are_no_map_are_refused_in_words() {
        for wrong in [json!([]), json!("a=b"), json!(7)] {
            let error = labelled(json!({ "labels": wrong })).unwrap_err();
            assert!(error.to_string().contains("labels is a map"), "{error}");
        }
    }
}
