//! Scenarios in, plans out: `golden/*.txt`. A file holds blocks separated by blank lines; each has a title (`# …`), what
//! is given, `->`, and the plan. With `UPDATE_GOLDEN=1` the plans are written anew, for a person to review.
//!
//! Given lines: `desire web@2+c1 db@1!` (`+` adds a configuration, `!` marks a system application), `no desire`,
//! `running web@1`, `unknown web`, `incomplete` (the list of what runs failed), `heading web@2`, `good web@1`,
//! `failed web@2`, `stored web@1 c1` (a release without a `stored` line is missing).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::*;
use crate::desire::AppRef;
use crate::name::{Epoch, Generation, Kind, Namespace, NodeName, NodeUid, ResourceName, Version};

/// A digest that stands for a name.
fn digest(name: &str) -> Digest {
    let mut bytes = [0; 32];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    Digest::from_sha256(bytes)
}

/// `web@2+c1+c2` with what it references.
pub(super) fn desired(text: &str) -> DesiredApp {
    let system = text.ends_with('!');
    let text = text.trim_end_matches('!');
    let mut parts = text.split('+');
    let app = parts.next().unwrap();
    let (name, version) = app.split_once('@').unwrap();
    let resources = parts.map(|config| ResourceRef {
        kind: Kind::Configuration,
        name: ResourceName::new(config).unwrap(),
        version: Version::new("1").unwrap(),
        digest: digest(config),
        size: 1,
    });
    let app = AppRef {
        name: AppName::new(name).unwrap(),
        version: Version::new(version).unwrap(),
        digest: digest(app),
        size: 1,
    };
    DesiredApp {
        app,
        resources: resources.collect(),
        objects: Vec::new(),
        system,
    }
}

pub(super) fn desire(apps: Vec<DesiredApp>) -> Desire {
    let mut desire = Desire {
        namespace: Namespace::new("default").unwrap(),
        node_name: NodeName::new("n1").unwrap(),
        node_uid: NodeUid::new("u1").unwrap(),
        epoch: Epoch(0),
        generation: Generation(1),
        digest: digest("desire"),
        apps,
        node_properties: BTreeMap::new(),
        core: None,
    };
    desire.sort();
    desire
}

fn given(block: &str) -> (Option<Desire>, Observed) {
    let mut wish = None;
    let mut observed = Observed {
        complete: true,
        ..Observed::default()
    };
    for line in block.lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let items = || rest.split_whitespace();
        let releases =
            || items().map(|item| (desired(item).app.name.clone(), desired(item).release()));
        match word {
            "desire" => wish = Some(desire(items().map(desired).collect())),
            "no" => wish = None,
            "incomplete" => observed.complete = false,
            "running" => observed
                .apps
                .extend(releases().map(|(app, release)| (app, Seen::Present(release)))),
            "unknown" => observed
                .apps
                .extend(items().map(|app| (AppName::new(app).unwrap(), Seen::Unknown))),
            "heading" => {
                releases().for_each(|(app, release)| {
                    observed.memory.entry(app).or_default().heading = Some(release)
                });
            }
            "good" => {
                releases().for_each(|(app, release)| {
                    observed.memory.entry(app).or_default().good = Some(release)
                });
            }
            "failed" => {
                releases().for_each(|(app, release)| {
                    observed.memory.entry(app).or_default().failed.push(release)
                });
            }
            "stored" => observed.stored.extend(items().map(digest)),
            other => panic!("\"{other}\" is no word of a scenario"),
        }
    }
    (wish, observed)
}

fn planned(block: &str) -> String {
    let (wish, observed) = given(block);
    let steps = plan(wish.as_ref(), &observed);
    if steps.is_empty() {
        return "nothing\n".to_owned();
    }
    steps.iter().fold(String::new(), |mut text, step| {
        let _ = writeln!(text, "{step}");
        text
    })
}

#[test]
fn plans_are_as_they_were_reviewed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plan/golden");
    let mut scenarios = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let blocks = text.trim().split("\n\n").map(|block| {
            scenarios += 1;
            let (title, rest) = block.split_once('\n').unwrap();
            let (given, _) = rest.split_once("->").unwrap();
            format!("{title}\n{given}->\n{}", planned(given))
        });
        let found = blocks.collect::<Vec<_>>().join("\n");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &found).unwrap();
            continue;
        }
        assert_eq!(found, text, "{}", path.display());
    }
    assert!(scenarios > 20, "the scenarios were not found");
}

#[test]
fn a_stage_step_names_only_what_is_missing() {
    let (wish, observed) = given("desire web@2+c1+c2\nstored c1");
    match plan(wish.as_ref(), &observed).as_slice() {
        [
            Step::Stage {
                resources, objects, ..
            },
            Step::Start { .. },
        ] => {
            let names: Vec<_> = resources.iter().map(ToString::to_string).collect();
            assert_eq!(names, ["application/web@2", "configuration/c2@1"]);
            assert!(objects.is_empty());
        }
        other => panic!("{other:?}"),
    }
}
