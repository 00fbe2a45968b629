//! Documents of `apply -f` and `delete -f`: files in, kinds, names and bodies out.

use std::io::Read as _;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize as _;
use serde_json::{Map, Value};

use crate::resources::Kind;

/// One document of a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Document {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    /// The body of the REST interface: the document without `apiVersion` and `kind`.
    pub(crate) body: Map<String, Value>,
}

impl std::fmt::Display for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// All documents of the files, in the order of writing.
///
/// # Errors
/// When a file cannot be read, holds something else, or describes something twice.
pub(crate) fn read(files: &[String]) -> Result<Vec<Document>> {
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
            bail!("{a} is described twice");
        }
    }
    Ok(documents)
}

/// All documents of a text, or all that is wrong with them.
pub(crate) fn parse(text: &str) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    let mut faults = Vec::new();
    for (number, document) in serde_norway::Deserializer::from_str(text).enumerate() {
        let value =
            Value::deserialize(document).with_context(|| format!("document {}", number + 1))?;
        match value {
            Value::Null => {}
            value => match named(value) {
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

fn named(value: Value) -> Result<Document> {
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
    Ok(Document { kind, name, body })
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
}
