use baetyl_kit::config::load_both;

use super::*;

fn load(env: &[(&str, &str)], file: Option<&str>) -> Result<(ShellSections, Config), String> {
    let dir = tempfile::tempdir().unwrap();
    let path = file.map(|text| {
        let path = dir.path().join("cloud.toml");
        std::fs::write(&path, text).unwrap();
        path
    });
    let env = env
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    load_both("cloud", path.as_deref(), env).map_err(|error| error.to_string())
}

#[test]
fn the_example_file_holds_the_defaults() {
    let example = include_str!("../../etc/cloud.toml");
    let (shell, config) = load(&[], Some(example)).unwrap();
    assert_eq!(shell, ShellSections::default());
    assert_eq!(config, Config::default());
}

#[test]
fn admin_is_the_rest_interface_and_metrics_the_port_of_the_shell() {
    let env = [
        ("BAETYL_CLOUD__ADMIN__LISTEN", "127.0.0.1:1"),
        ("BAETYL_CLOUD__METRICS__LISTEN", "127.0.0.1:2"),
    ];
    let (shell, config) = load(&env, None).unwrap();
    assert_eq!(config.admin.listen, "127.0.0.1:1".parse().unwrap());
    assert_eq!(
        shell.into_shell().admin.listen,
        "127.0.0.1:2".parse().unwrap()
    );
}

#[test]
fn every_mistake_is_named_with_its_key() {
    let error = load(
        &[("BAETYL_CLOUD__ADMIN__LISTEN", "nowhere")],
        Some("namspace = \"x\"\n[auth]\nmethod = \"magic\"\n"),
    );
    let error = error.unwrap_err();
    for part in ["BAETYL_CLOUD__ADMIN__LISTEN", "namspace", "auth.method"] {
        assert!(error.contains(part), "{part} in {error}");
    }
}

#[test]
fn addresses_for_nodes_have_the_bound_port_unless_they_are_given() {
    let public = PublicConfig {
        host: "::1".parse().unwrap(),
        ..PublicConfig::default()
    };
    let bound = "0.0.0.0:7".parse().unwrap();
    assert_eq!(public.activation_url(&bound), "https://[::1]:7");
    assert_eq!(public.link_urls(&bound), ["https://[::1]:7"]);
    let public = PublicConfig {
        link_urls: vec!["https://edge.example.com".parse().unwrap()],
        ..public
    };
    assert_eq!(public.link_urls(&bound), ["https://edge.example.com"]);
}

#[test]
fn wrong_names_addresses_and_numbers_are_all_reported_with_their_keys() {
    let file = r#"
namespace = "Not.A.Name"
[public]
host = "https://cloud.example.com"
names = ["good.example.com", "bad name"]
activation_url = "cloud.example.com:9003"
link_urls = ["https://edge.example.com/path"]
[pki]
trust_domain = "Baetyl"
node_certificate_days = 0
grace_days = 4000000000
server_certificate_days = 0
[install]
token_seconds = 0
token_uses = 0
[report]
heartbeat_period_ms = 0
stats_period_ms = 0
flush_seconds = 0
events_per_node = 0
"#;
    let error = load(&[], Some(file)).unwrap_err();
    for key in [
        "namespace",
        "public.host",
        "public.names.1",
        "public.activation_url",
        "public.link_urls.0",
        "pki.trust_domain",
        "pki.node_certificate_days",
        "pki.grace_days",
        "pki.server_certificate_days",
        "install.token_seconds",
        "install.token_uses",
        "report.heartbeat_period_ms",
        "report.stats_period_ms",
        "report.flush_seconds",
        "report.events_per_node",
    ] {
        assert!(error.contains(&format!("{key}: ")), "{key} in {error}");
    }
    assert!(error.contains("15 mistakes"), "{error}");
}
