//! `apply -f` and `delete -f`: documents in, requests out; everything is checked before the first write.

use std::collections::BTreeSet;
use std::io::Read as _;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize as _;
use serde_json::{Map, Value, json};

use crate::client::{Client, encode};
use crate::output::{self, Format};
use crate::resources::Kind;

/// One document of a file.
#[derive(Clone, Debug, PartialEq)]
struct Document {
    kind: Kind,
    name: String,
    body: Map<String, Value>,
}

/// Creates or updates everything the files describe.
///
/// # Errors
/// When a document is wrong (nothing was written then) or the cloud refuses one (earlier ones are written; the message says which).
pub(crate) async fn apply(
    client: &Client,
    files: &[String],
    prune: Option<&str>,
    format: Format,
) -> Result<()> {
    let mut documents = read(files)?;
    let prune = prune.map(parse_label).transpose()?;
    if let Some((key, value)) = &prune {
        for document in &mut documents {
            let labels = document.body.entry("labels").or_insert_with(|| json!({}));
            labels[key.as_str()] = Value::from(value.as_str());
        }
    }
    for document in &documents {
        let path = document.kind.path(&document.name);
        let body = Value::Object(document.body.clone());
        let (answer, done) = match client.find(&path).await? {
            None => {
                let path = format!("{}?fieldValidation=Strict", document.kind.list_path());
                (client.post(&path, &body).await, "created")
            }
            Some((_, tag)) => (
                client
                    .put(
                        &format!("{path}?fieldValidation=Strict"),
                        &body,
                        tag.as_deref(),
                    )
                    .await,
                "configured",
            ),
        };
        let answer = answer.with_context(|| format!("{}/{}", document.kind, document.name))?;
        match format {
            Format::Table | Format::Wide => println!("{}/{} {done}", document.kind, document.name),
            _ => print!("{}", output::render(document.kind, &answer, format)?),
        }
    }
    match prune {
        Some((key, value)) => remove_others(client, &documents, &format!("{key}={value}")).await,
        None => Ok(()),
    }
}

/// Deletes everything the files describe, applications first.
///
/// # Errors
/// When a document is wrong or the cloud refuses a deletion.
pub(crate) async fn delete(client: &Client, files: &[String]) -> Result<()> {
    for document in read(files)?.iter().rev() {
        client.delete(&document.kind.path(&document.name)).await?;
        println!("{}/{} deleted", document.kind, document.name);
    }
    Ok(())
}

async fn remove_others(client: &Client, documents: &[Document], selector: &str) -> Result<()> {
    let kept: BTreeSet<(String, &str)> = documents
        .iter()
        .map(|d| (d.kind.to_string(), d.name.as_str()))
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
            if !kept.contains(&(kind.to_string(), name)) {
                client.delete(&kind.path(name)).await?;
                println!("{kind}/{name} pruned");
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

fn read(files: &[String]) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    for file in files {
        let text = if file == "-" {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("cannot read standard input")?;
            text
        } else {
            std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?
        };
        documents.extend(parse(&text).with_context(|| file.clone())?);
    }
    if documents.is_empty() {
        bail!("the files hold no document");
    }
    documents.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
    for pair in documents.windows(2) {
        if let [a, b] = pair
            && (a.kind, &a.name) == (b.kind, &b.name)
        {
            bail!("{}/{} is described twice", a.kind, a.name);
        }
    }
    Ok(documents)
}

/// All documents of a text, or all that is wrong with them.
fn parse(text: &str) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    let mut faults = Vec::new();
    for (number, document) in serde_norway::Deserializer::from_str(text).enumerate() {
        let value =
            Value::deserialize(document).with_context(|| format!("document {}", number + 1))?;
        match value {
            Value::Null => {}
            value => match check(value) {
                Ok(document) => documents.push(document),
                Err(error) => faults.push(format!("document {}: {error:#}", number + 1)),
            },
        }
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    Ok(documents)
}

fn check(value: Value) -> Result<Document> {
    let Value::Object(mut body) = value else {
        bail!("a document is a map with apiVersion, kind and name")
    };
    match body.remove("apiVersion") {
        Some(Value::String(version)) if version == "baetyl/v1" => {}
        Some(other) => bail!("apiVersion {other} is not baetyl/v1"),
        None => bail!("apiVersion is missing (baetyl/v1)"),
    }
    let kind = body.remove("kind").context("kind is missing")?;
    let kind: Kind = kind
        .as_str()
        .unwrap_or_default()
        .parse()
        .map_err(anyhow::Error::msg)?;
    let name = body
        .get("name")
        .and_then(Value::as_str)
        .context("name is missing")?
        .to_owned();
    baetyl_model::name::ResourceName::try_from(name.clone())
        .with_context(|| format!("{kind}/{name}"))?;
    if kind == Kind::App {
        check_application(&body).with_context(|| format!("{kind}/{name}"))?;
    }
    Ok(Document { kind, name, body })
}

fn check_application(body: &Map<String, Value>) -> Result<()> {
    if let Some(selector) = body.get("selector").and_then(Value::as_str) {
        selector
            .parse::<baetyl_model::labels::Selector>()
            .context("selector")?;
    }
    if body
        .get("services")
        .is_some_and(|services| !services.is_array())
    {
        bail!("services is a list");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_ordered_so_that_references_exist_first() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("all.yaml");
        std::fs::write(
            &file,
            "apiVersion: baetyl/v1\nkind: app\nname: web\n---\napiVersion: baetyl/v1\nkind: Config\nname: web-conf\n",
        )
        .unwrap();
        let read = read(&[file.display().to_string()]).unwrap();
        assert_eq!(
            read.iter().map(|d| d.kind).collect::<Vec<_>>(),
            [Kind::Config, Kind::App]
        );
        assert!(!read.first().unwrap().body.contains_key("kind"));
    }

    #[test]
    fn every_wrong_document_is_named_at_once() {
        let error = parse(
            "apiVersion: v1\nkind: app\nname: aa\n---\napiVersion: baetyl/v1\nkind: pod\nname: bb\n---\napiVersion: baetyl/v1\nkind: node\nname: UPPER\n",
        )
        .unwrap_err()
        .to_string();
        for word in [
            "document 1",
            "not baetyl/v1",
            "document 2",
            "unknown kind \"pod\"",
            "document 3",
        ] {
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_wrong_selector_is_found_before_anything_is_written() {
        let error = parse("apiVersion: baetyl/v1\nkind: app\nname: web\nselector: 'a in (b'\n")
            .unwrap_err();
        assert!(format!("{error:#}").contains("selector"), "{error:#}");
    }
}
