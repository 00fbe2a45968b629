//! Configurations: objects pinned to a digest, propagation to applications.

use std::collections::BTreeMap;

use baetyl_model::resource::configuration::OBJECT_PREFIX;
use baetyl_model::resource::{
    ConfigItem, Configuration, ConfigurationView, FieldError, ObjectItem, validate,
};
use baetyl_model::{Digest, Kind};

use super::{CatalogError, Written, applications, current, put};
use crate::store::{ConfigObject, NewResource, StoreError, Tx};

/// Fields an object item may have; everything else is refused, so that no credentials are stored and delivered.
const OBJECT_FIELDS: [&str; 9] = [
    "type", "source", "account", "object", "url", "sha256", "md5", "size", "unpack",
];

/// Creates or replaces a configuration, given with a name and valid by the rules of the model.
///
/// # Errors
/// When an object it names is not there or not what it should be, or its data is too large.
pub async fn put_configuration(
    tx: &mut Tx,
    view: ConfigurationView,
) -> Result<Written<Configuration>, CatalogError> {
    let old: Option<Written<Configuration>> = current(tx, &view.name).await?;
    let before = old.as_ref().map(|old| old.row.version);
    let mut view = ConfigurationView {
        system: false,
        ..view
    };
    pin_objects(tx, &mut view, old.as_ref()).await?;
    let config = view.into_stored();
    let size = serde_json::to_vec(&config.data).map_or(usize::MAX, |data| data.len());
    if size > validate::MAX_CONFIGURATION_BYTES {
        return Err(CatalogError::TooLarge {
            size,
            max: validate::MAX_CONFIGURATION_BYTES,
        });
    }
    // A new description is a new version, but none that anybody runs with.
    let is_news = old
        .as_ref()
        .is_none_or(|old| !has_content(&old.body, &config));
    let about = NewResource {
        kind: Kind::Configuration,
        name: config.name.clone(),
        labels: config.labels.clone(),
        system: false,
        subtype: String::new(),
        selector: String::new(),
        body: Vec::new(),
        references: Vec::new(),
        objects: objects(&config)?,
    };
    let written = put(tx, config, old, PartialEq::eq, about).await?;
    if is_news && before.is_some_and(|before| before != written.row.version) {
        applications::propagate(
            tx,
            Kind::Configuration,
            &written.row.name,
            written.row.version,
        )
        .await?;
    }
    Ok(written)
}

/// True when two versions differ in words for people at most.
pub(super) fn has_content(a: &Configuration, b: &Configuration) -> bool {
    a.data == b.data && a.labels == b.labels
}

/// Mistakes in object items that the model's rules let pass, because Baetyl v2 knows more sources than this cloud.
pub fn validate_objects(view: &ConfigurationView) -> Vec<FieldError> {
    let mut found = Vec::new();
    for (index, item) in view.data.iter().enumerate() {
        let mut add = |field: &str, message: String| {
            found.push(FieldError {
                field: format!("data[{index}].value.{field}"),
                message,
            });
        };
        match item.value.get("type").map(String::as_str) {
            Some("object") => object_mistakes(item, &mut add),
            Some("function") => add(
                "type",
                "functions of other clouds are not imported; upload the code (PUT /v1/objects/{name}) and use type \
                 object with source baetyl, or one key per source file"
                    .to_owned(),
            ),
            _ => {}
        }
    }
    found
}

fn object_mistakes(item: &ConfigItem, add: &mut impl FnMut(&str, String)) {
    let given = |field: &str| item.value.get(field).map_or("", String::as_str);
    match given("source") {
        "http" => {
            if given("sha256").is_empty() {
                add(
                    "sha256",
                    "is needed with source http: nodes take only what has this digest".to_owned(),
                );
            }
        }
        "baetyl" => {
            if given("object").is_empty() {
                add(
                    "object",
                    "is needed with source baetyl: the name of an uploaded object".to_owned(),
                );
            }
            if !given("url").is_empty() {
                add("url", "has no meaning with source baetyl".to_owned());
            }
        }
        "" => {}
        other => add(
            "source",
            format!("\"{other}\" is not one of baetyl (an uploaded object), http"),
        ),
    }
    for field in item
        .value
        .keys()
        .filter(|field| !OBJECT_FIELDS.contains(&field.as_str()))
    {
        add(field, "is not known here; nodes fetch without credentials, upload the file as an object instead".to_owned());
    }
}

/// Writes digest, size and md5 of uploaded objects into the items that name them.
async fn pin_objects(
    tx: &mut Tx,
    view: &mut ConfigurationView,
    old: Option<&Written<Configuration>>,
) -> Result<(), CatalogError> {
    let mut missing = Vec::new();
    let mut wrong = Vec::new();
    for (index, item) in view.data.iter_mut().enumerate() {
        let is_ours = item.value.get("type").is_some_and(|kind| kind == "object")
            && item
                .value
                .get("source")
                .is_some_and(|source| source == "baetyl");
        if !is_ours {
            continue;
        }
        let name = item.value.get("object").cloned().unwrap_or_default();
        let wanted = item
            .value
            .get("sha256")
            .map(|hex| hex.to_ascii_lowercase())
            .unwrap_or_default();
        let object = tx.object(&name).await?;
        let newest = object.map(|object| (object.digest.hex(), object.md5, object.size));
        let pinned = pinned(old, &item.key, &name);
        let chosen = if wanted.is_empty() {
            newest
        } else {
            // A caller that writes back what it read keeps the content it read, also when a newer one was uploaded.
            [newest, pinned].into_iter().flatten().find(|(digest, ..)| *digest == wanted).or_else(|| {
                let message = format!("object \"{name}\" has no content of this digest; leave it out to take the newest");
                wrong.push(FieldError { field: format!("data[{index}].value.sha256"), message });
                None
            })
        };
        match chosen {
            Some((digest, md5, size)) => {
                item.value.insert("sha256".to_owned(), digest);
                item.value.insert("md5".to_owned(), md5);
                item.value.insert("size".to_owned(), size.to_string());
            }
            None if wanted.is_empty() => missing.push(("object", name)),
            None => {}
        }
    }
    match (missing.is_empty(), wrong.is_empty()) {
        (_, false) => Err(CatalogError::Fields(wrong)),
        (false, true) => Err(CatalogError::Missing(missing)),
        (true, true) => Ok(()),
    }
}

/// What the current version is pinned to for this file, if it came from this object.
fn pinned(
    old: Option<&Written<Configuration>>,
    key: &str,
    object: &str,
) -> Option<(String, String, u64)> {
    let (_, item) = old?
        .body
        .objects()
        .filter_map(Result::ok)
        .find(|(name, _)| *name == key)?;
    (item.metadata.get("object").map(String::as_str) == Some(object)).then_some((
        item.sha256,
        item.md5,
        item.size,
    ))
}

fn objects(config: &Configuration) -> Result<Vec<ConfigObject>, StoreError> {
    let bad = |reason: String| StoreError::Row {
        what: "object item",
        reason,
    };
    config
        .objects()
        .map(|item| {
            let (file_name, item) = item.map_err(|error| bad(error.to_string()))?;
            let digest: Digest = format!("sha256:{}", item.sha256)
                .parse()
                .map_err(|error| bad(format!("{error}")))?;
            let ObjectItem {
                size,
                url,
                unpack,
                metadata,
                ..
            } = item;
            let object = if url.is_empty() {
                metadata.get("object").cloned().unwrap_or_default()
            } else {
                String::new()
            };
            Ok(ConfigObject {
                file_name: file_name.to_owned(),
                digest,
                size,
                url,
                object,
                unpack,
            })
        })
        .collect()
}

/// Digests of uploaded objects a stored configuration is pinned to: candidates for removal when it changes.
pub fn pinned_digests(config: &Configuration) -> Vec<Digest> {
    let objects = config
        .data
        .iter()
        .filter(|(key, _)| key.starts_with(OBJECT_PREFIX));
    let items = objects.filter_map(|(_, text)| serde_json::from_str::<ObjectItem>(text).ok());
    items
        .filter(|item| item.url.is_empty())
        .filter_map(|item| format!("sha256:{}", item.sha256).parse().ok())
        .collect()
}

/// Data of a list item: left out, except of image configurations, as Baetyl v2 means it.
pub fn shown_in_list(config: &Configuration) -> BTreeMap<String, String> {
    if config.config_type() == "baetyl-image" {
        config.data.clone()
    } else {
        BTreeMap::new()
    }
}
