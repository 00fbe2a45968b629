//! How answers look: tables, wide tables, JSON, YAML, descriptions.

use anyhow::Result;
use clap::ValueEnum;
use serde_json::Value;

use crate::resources::Kind;

/// Form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    #[default]
    Table,
    Wide,
    Json,
    Yaml,
}

/// Renders a list or one resource.
///
/// # Errors
/// When the value cannot be written in the format.
pub(crate) fn render(kind: Kind, body: &Value, format: Format) -> Result<String> {
    match format {
        Format::Json => Ok(serde_json::to_string_pretty(body)? + "\n"),
        Format::Yaml => Ok(serde_norway::to_string(body)?),
        Format::Table | Format::Wide => Ok(table(kind, body, format == Format::Wide)),
    }
}

type Column = (&'static str, bool, fn(&Value) -> String);

fn columns(kind: Kind) -> Vec<Column> {
    let mut columns: Vec<Column> = vec![("NAME", false, |v| text(&v["name"]))];
    match kind {
        Kind::Node => {
            columns.push(("STATUS", false, |v| ready(&v["ready"]).to_owned()));
            columns.push(("MODE", false, |v| text(&v["nodeMode"])));
            columns.push(("APPS", false, running));
            columns.push(("LABELS", true, |v| labels(&v["labels"])));
        }
        Kind::App => {
            columns.push(("TYPE", false, |v| text(&v["type"])));
            columns.push(("MODE", false, |v| text(&v["mode"])));
            columns.push(("VERSION", false, |v| text(&v["version"])));
            columns.push(("SELECTOR", true, |v| text(&v["selector"])));
        }
        Kind::Registry => columns.push(("ADDRESS", false, |v| text(&v["address"]))),
        Kind::Certificate => columns.push(("EXPIRES", false, |v| text(&v["data"]["expiredTime"]))),
        Kind::Config | Kind::Secret => {}
    }
    if kind != Kind::App && kind != Kind::Node {
        columns.push(("VERSION", false, |v| text(&v["version"])));
    }
    columns.push(("CREATED", true, |v| text(&v["createTime"])));
    columns
}

fn table(kind: Kind, body: &Value, wide: bool) -> String {
    let one = [body.clone()];
    let items = body["items"]
        .as_array()
        .map_or(one.as_slice(), Vec::as_slice);
    let columns: Vec<Column> = columns(kind)
        .into_iter()
        .filter(|column| wide || !column.1)
        .collect();
    let mut rows = vec![
        columns
            .iter()
            .map(|column| column.0.to_owned())
            .collect::<Vec<_>>(),
    ];
    rows.extend(
        items
            .iter()
            .map(|item| columns.iter().map(|column| column.2(item)).collect()),
    );
    align(&rows)
}

fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |i: usize| {
        rows.iter()
            .filter_map(|row| row.get(i))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let line: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        out.push_str(line.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// A resource for people: its fields, then for a node what runs there.
///
/// # Errors
/// When the value cannot be written.
pub(crate) fn describe(kind: Kind, body: &Value) -> Result<String> {
    if kind != Kind::Node {
        return Ok(serde_norway::to_string(body)?);
    }
    let mut out = format!(
        "Name:    {}\nStatus:  {}\nMode:    {}\nLabels:  {}\n",
        text(&body["name"]),
        ready(&body["ready"]),
        text(&body["nodeMode"]),
        labels(&body["labels"])
    );
    for (host, info) in body["report"]["node"].as_object().into_iter().flatten() {
        out += &format!(
            "Machine: {host} {} {} {}\n",
            text(&info["arch"]),
            text(&info["osImage"]),
            text(&info["address"])
        );
    }
    let mut rows = vec![
        ["APP", "VERSION", "STATUS", "INSTANCES", "CAUSE"]
            .map(ToOwned::to_owned)
            .to_vec(),
    ];
    for app in body["report"]["appstats"].as_array().into_iter().flatten() {
        let instances = app["instances"].as_object().map_or(0, serde_json::Map::len);
        rows.push(vec![
            text(&app["name"]),
            text(&app["version"]),
            text(&app["status"]),
            instances.to_string(),
            text(&app["cause"]),
        ]);
    }
    if rows.len() > 1 {
        out += &align(&rows);
    }
    Ok(out)
}

/// Names of a related list, one a line.
pub(crate) fn related(body: &Value) -> String {
    let names = body["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|item| format!("  {}", text(&item["name"])));
    names.collect::<Vec<_>>().join("\n")
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn ready(value: &Value) -> &'static str {
    match value.as_u64() {
        Some(1) => "online",
        Some(2) => "offline",
        _ => "uninstalled",
    }
}

fn running(node: &Value) -> String {
    let Some(apps) = node["report"]["appstats"].as_array() else {
        return String::new();
    };
    let running = apps.iter().filter(|app| app["status"] == "Running").count();
    format!("{running}/{}", apps.len())
}

fn labels(value: &Value) -> String {
    let pairs = value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", text(value)));
    pairs.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_aligns_columns_and_wide_shows_more_of_them() {
        let list = json!({"items": [
            {"name": "a", "type": "container", "version": "12", "selector": "site=north"},
            {"name": "longer", "type": "function", "version": "7"},
        ]});
        let narrow = render(Kind::App, &list, Format::Table).unwrap();
        assert_eq!(
            narrow,
            "NAME    TYPE       MODE  VERSION\na       container        12\nlonger  function         7\n"
        );
        assert!(
            render(Kind::App, &list, Format::Wide)
                .unwrap()
                .contains("site=north")
        );
    }

    #[test]
    fn a_single_resource_is_a_table_of_one_row() {
        let node = json!({"name": "n1", "ready": 1, "nodeMode": "native"});
        assert!(
            render(Kind::Node, &node, Format::Table)
                .unwrap()
                .contains("n1    online  native")
        );
    }
}
