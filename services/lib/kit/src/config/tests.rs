use super::*;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::listen::Listen;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    name: String,
    retries: u16,
    #[serde(with = "duration")]
    interval: Duration,
    #[serde(with = "duration::option")]
    limit: Option<Duration>,
    store: Store,
    rest: Rest,
    token: Option<SecretFile>,
    labels: BTreeMap<String, String>,
    mirrors: Vec<Mirror>,
    ports: Vec<u16>,
    mode: Mode,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "node-1".to_owned(),
            retries: 3,
            interval: Duration::from_secs(10),
            limit: None,
            store: Store::default(),
            rest: Rest {
                listen: Listen::loopback(),
            },
            token: None,
            labels: BTreeMap::new(),
            mirrors: Vec::new(),
            ports: vec![1],
            mode: Mode::Native,
        }
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Native,
    Kube,
}

/// Forgot `deny_unknown_fields`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Store {
    max_size: ByteSize,
    keep: u32,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            max_size: ByteSize::mib(64),
            keep: 2,
        }
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rest {
    listen: Listen,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mirror {
    url: String,
    weight: u8,
}

fn file(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

fn env(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    variables.iter().map(owned).collect()
}

/// The mistakes as `source: key: problem`, with the path of the file shortened.
fn mistakes(path: Option<&Path>, variables: &[(&str, &str)]) -> Vec<String> {
    let error = load::<Config>("my-node", path, env(variables)).unwrap_err();
    let shown = path.map_or(String::new(), |path| path.display().to_string());
    let line = |mistake: &Mistake| match shown.as_str() {
        "" => mistake.to_string(),
        shown => mistake.to_string().replace(shown, "F"),
    };
    error.mistakes.iter().map(line).collect()
}

fn from_toml(text: &str) -> Vec<String> {
    let (_dir, path) = file("c.toml", text);
    mistakes(Some(&path), &[])
}

#[test]
fn without_file_and_environment_the_defaults_count() {
    assert_eq!(
        load::<Config>("x", None, env(&[])).unwrap(),
        Config::default()
    );
}

#[test]
fn the_environment_beats_the_file_and_the_file_beats_the_defaults() {
    let (_dir, path) = file(
        "c.toml",
        r#"
        name = "from-file"
        retries = 5
        interval = "1m30s"
        store.max_size = "1GiB"
        labels = { site = "a" }
        "#,
    );
    let variables = env(&[
        ("BAETYL_MY_NODE__RETRIES", "7"),
        ("BAETYL_MY_NODE__STORE__KEEP", "9"),
        ("BAETYL_MY_NODE__LIMIT", "5m"),
        ("BAETYL_MY_NODE__PORTS", "[80, 443]"),
        ("BAETYL_OTHER__RETRIES", "8"),
        ("HOME", "/root"),
    ]);
    let config: Config = load("my-node", Some(&path), variables).unwrap();
    assert_eq!(config.name, "from-file");
    assert_eq!(config.retries, 7);
    assert_eq!(config.interval, Duration::from_secs(90));
    assert_eq!(config.limit, Some(Duration::from_secs(300)));
    assert_eq!(config.store.max_size, ByteSize::gib(1));
    assert_eq!(config.store.keep, 9);
    assert_eq!(config.labels["site"], "a");
    assert_eq!(config.ports, [80, 443]);
}

#[test]
fn yaml_says_the_same_as_toml() {
    let toml = "retries = 5\n[[mirrors]]\nurl = \"a\"\nweight = 1\n";
    let yaml = "retries: 5\nmirrors:\n  - {url: a, weight: 1}\n";
    let (_dir, toml) = file("c.toml", toml);
    let (_dir, yaml) = file("c.yaml", yaml);
    let read = |path: &Path| load::<Config>("x", Some(path), env(&[])).unwrap();
    assert_eq!(read(&toml), read(&yaml));
}

#[test]
fn an_empty_yaml_file_changes_nothing() {
    let (_dir, path) = file("c.yaml", "# nothing yet\n");
    assert_eq!(
        load::<Config>("x", Some(&path), env(&[])).unwrap(),
        Config::default()
    );
}

#[test]
fn all_mistakes_are_reported_at_once_with_file_and_key() {
    let found = from_toml(
        r#"
        retries = "many"
        interval = 10
        nmae = "typo"
        mode = "docker"
        [store]
        keep = -1
        maxsize = "1GiB"
        [rest]
        listen = "localhost:80"
        "#,
    );
    let expected = [
        "file F: interval: \"10\" is not a time such as",
        "file F: mode: is \"docker\", expected one of native, kube",
        "file F: nmae: unknown key; known here: name, retries,",
        "file F: rest.listen: \"localhost:80\" is no place to listen",
        "file F: retries: is string \"many\", expected u16",
        "file F: store.keep: is signed int `-1`, expected u32",
        "file F: store.maxsize: unknown key",
    ];
    let mut found = found;
    found.sort();
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (line, start) in found.iter().zip(expected) {
        assert!(
            line.starts_with(start),
            "{line}\n  should start with\n{start}"
        );
    }
}

#[test]
fn mistakes_in_a_list_name_the_index_as_it_was_given() {
    let found = from_toml(
        r#"
        ports = [80, "http", 70000, 443, "https"]
        [[mirrors]]
        url = "a"
        [[mirrors]]
        url = "b"
        weight = 1
        wieght = 2
        [[mirrors]]
        url = 3
        weight = 1
        "#,
    );
    let keys: Vec<&str> = found
        .iter()
        .map(|line| line.split(": ").nth(1).unwrap())
        .collect();
    assert_eq!(
        keys,
        [
            "mirrors.0",
            "mirrors.1.wieght",
            "mirrors.2.url",
            "ports.1",
            "ports.2",
            "ports.4"
        ],
        "{found:#?}"
    );
    assert!(
        found[0].ends_with("the key weight is missing"),
        "{}",
        found[0]
    );
}

#[test]
fn mistakes_in_the_environment_name_the_variable() {
    let found = mistakes(
        None,
        &[
            ("BAETYL_MY_NODE__RETRIES", "many"),
            ("BAETYL_MY_NODE__STORE__MAXSIZE", "1"),
            ("BAETYL_MY_NODE__NOTHING", "1"),
        ],
    );
    let expected = [
        "environment: BAETYL_MY_NODE__NOTHING: unknown key; known here: name,",
        "environment: BAETYL_MY_NODE__RETRIES: is string \"many\", expected u16",
        "environment: BAETYL_MY_NODE__STORE__MAXSIZE: unknown key",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (line, start) in found.iter().zip(expected) {
        assert!(
            line.starts_with(start),
            "{line}\n  should start with\n{start}"
        );
    }
}

#[test]
fn a_text_from_the_environment_stays_a_text() {
    let variables = env(&[
        ("BAETYL_X__NAME", "007"),
        ("BAETYL_X__LABELS__SITE", "42"),
        ("BAETYL_X__LABELS__ON", "true"),
    ]);
    let config: Config = load("x", None, variables).unwrap();
    assert_eq!(config.name, "007");
    assert_eq!(config.labels["site"], "42");
    assert_eq!(config.labels["on"], "true");
}

#[test]
fn a_secret_in_place_of_its_path_is_refused_and_not_shown() {
    let found = from_toml("token = \"hunter2\"\n");
    assert_eq!(
        found,
        [
            "file F: token: expected the absolute path of a file that holds the secret, never the secret itself"
        ]
    );
}

#[test]
fn a_secret_is_read_from_its_file_and_never_shown() {
    let (_dir, path) = file("token", "hunter2\n");
    let secret = SecretFile::new(&path);
    assert_eq!(secret.read_text().unwrap(), "hunter2");
    let bytes = secret.read().unwrap();
    assert_eq!(bytes.bytes(), b"hunter2\n");
    assert_eq!(format!("{bytes:?}"), "Secret(..)");
    std::fs::write(&path, "\n").unwrap();
    assert!(matches!(secret.read_text(), Err(SecretError::Empty { .. })));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(secret.read(), Err(SecretError::Read { .. })));
}

#[test]
fn a_file_that_cannot_be_parsed_is_one_mistake_with_its_place() {
    let (_dir, path) = file("c.toml", "retries = \n");
    let found = mistakes(Some(&path), &[]);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("file F: is not valid TOML:") && found[0].contains("line 1"),
        "{found:?}"
    );
    let (_dir, path) = file("c.ini", "");
    assert_eq!(
        mistakes(Some(&path), &[]),
        ["file F: has an unknown format; name it .toml or .yaml"]
    );
    let missing = mistakes(Some(Path::new("/nonexistent/c.toml")), &[]);
    assert!(
        missing[0].starts_with("file F: cannot be read: "),
        "{missing:?}"
    );
}

#[test]
fn what_is_printed_can_be_read_again() {
    let config = Config {
        limit: Some(Duration::from_millis(1500)),
        token: Some(SecretFile::new("/etc/token")),
        ..Config::default()
    };
    let (_dir, path) = file("c.yaml", &render(&config).unwrap());
    assert_eq!(load::<Config>("x", Some(&path), env(&[])).unwrap(), config);
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Shell {
    admin: Option<u16>,
}

#[test]
fn two_types_share_a_file_and_report_their_mistakes_together() {
    let (_dir, path) = file("c.toml", "admin = 5\nretries = 4\n");
    let (shell, config) = load_both::<Shell, Config>("x", Some(&path), env(&[])).unwrap();
    assert_eq!((shell.admin, config.retries), (Some(5), 4));
    let (_dir, path) = file("c.toml", "admin = \"a\"\nretries = \"b\"\n");
    let error = load_both::<Shell, Config>("x", Some(&path), env(&[])).unwrap_err();
    let keys: Vec<&str> = error
        .mistakes
        .iter()
        .map(|mistake| mistake.key.as_str())
        .collect();
    assert_eq!(keys, ["admin", "retries"]);
    assert!(error.to_string().contains("2 mistakes"));
}

#[test]
fn a_key_of_both_types_is_a_mistake_of_the_program() {
    let error = load_both::<Config, Config>("x", None, env(&[])).unwrap_err();
    assert!(
        error.mistakes[0].problem.contains("belongs to the shell"),
        "{error}"
    );
}

#[test]
fn a_service_without_configuration_refuses_every_key() {
    assert!(load::<Empty>("x", None, env(&[])).is_ok());
    let (_dir, path) = file("c.toml", "a = 1\n");
    assert!(load::<Empty>("x", Some(&path), env(&[])).is_err());
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}
