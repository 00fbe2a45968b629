//! The Dockerfile says of each image what the table of images says; that it builds is `--dockerfile-check`'s to show.

use std::collections::BTreeMap;

use super::super::catalog::{IMAGES, LICENSES, SOURCE, Source, USER};
use super::super::skeleton;
use super::*;

/// One stage: the image it begins with, and its instructions.
struct Stage {
    from: String,
    lines: Vec<String>,
}

/// The stages by name, continued lines joined.
fn stages() -> BTreeMap<String, Stage> {
    let text = fs::read_to_string(crate::root().join("Dockerfile")).unwrap();
    // Comments may stand between continued lines.
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    let text = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let mut stages = BTreeMap::new();
    let mut last = String::new();
    for line in text.lines().map(str::trim) {
        if let Some(from) = line.strip_prefix("FROM ") {
            let words: Vec<_> = from.split_whitespace().collect();
            let [.., from, "AS", name] = words[..] else {
                panic!("{line}")
            };
            last = name.to_owned();
            let stage = Stage {
                from: from.to_owned(),
                lines: Vec::new(),
            };
            stages.insert(last.clone(), stage);
        } else if let Some(stage) = stages.get_mut(&last) {
            stage.lines.push(line.to_owned());
        }
    }
    stages
}

impl Stage {
    fn all(&self, instruction: &str) -> Vec<&str> {
        self.lines
            .iter()
            .filter_map(|line| line.strip_prefix(instruction)?.strip_prefix(' '))
            .collect()
    }

    fn labels(&self) -> BTreeMap<String, String> {
        self.all("LABEL")
            .into_iter()
            .flat_map(|line| line.split("org.opencontainers.image."))
            .filter_map(|label| label.trim().split_once("=\""))
            .map(|(key, value)| (key.to_owned(), value.trim_end_matches('"').to_owned()))
            .collect()
    }
}

#[test]
fn it_has_a_target_for_each_image_that_says_the_same() {
    let stages = stages();
    for image in IMAGES {
        let stage = &stages[image.name];
        let from = match image.base {
            Base::Scratch => "service",
            Base::Python => "${PYTHON_IMAGE}",
        };
        assert_eq!(stage.from, from, "{}", image.name);
        let labels = stage.labels();
        assert_eq!(labels["title"], image.title);
        assert_eq!(labels["description"], image.description);
        let programs = image
            .programs
            .iter()
            .map(|p| format!("/out/bin/{} ", p.name));
        let is_helm = image.programs.iter().any(|p| p.source == Source::Helm);
        let stage_of = if is_helm { "helm" } else { "binaries" };
        let copy = format!(
            "--from={stage_of} {}/usr/bin/",
            programs.collect::<String>()
        );
        assert!(
            stage.all("COPY").contains(&&*copy),
            "{}: {copy}",
            image.name
        );
        let json = |words: &[String]| serde_json::to_string(words).unwrap().replace(',', ", ");
        let entrypoint: Vec<_> = image.entrypoint().into_iter().collect();
        assert_eq!(stage.all("ENTRYPOINT"), [json(&entrypoint)]);
        let command: Vec<_> = image.command.iter().map(|&word| word.to_owned()).collect();
        let wanted: Vec<_> = (!command.is_empty())
            .then(|| json(&command))
            .into_iter()
            .collect();
        assert_eq!(stage.all("CMD"), wanted, "{}", image.name);
        if image.base == Base::Python {
            assert_common(stage);
        }
    }
    assert_common(&stages["service"]);
}

/// What all images have.
fn assert_common(stage: &Stage) {
    assert_eq!(stage.all("USER"), [format!("{USER}:{USER}")]);
    let labels = stage.labels();
    assert_eq!(labels["source"], SOURCE);
    assert_eq!(labels["licenses"], LICENSES);
    assert_eq!(labels["version"], "${VERSION}");
    assert_eq!(labels["revision"], "${REVISION}");
    let version = format!("VERSION={}", env!("CARGO_PKG_VERSION"));
    assert!(stage.all("ARG").contains(&&*version), "{version}");
}

#[test]
fn its_builder_knows_every_program_and_the_same_users() {
    let stages = stages();
    let builder = &stages["builder"];
    let list = builder
        .all("ARG")
        .into_iter()
        .find_map(|arg| arg.strip_prefix("PROGRAMS="))
        .unwrap();
    let mut has: Vec<_> = list.trim_matches('"').split(' ').collect();
    let mut wanted: Vec<_> = IMAGES
        .iter()
        .flat_map(|image| image.programs)
        .filter(|program| matches!(program.source, Source::Crate(_)))
        .map(|p| p.name)
        .collect();
    for names in [&mut has, &mut wanted] {
        names.sort_unstable();
        names.dedup();
    }
    assert_eq!(has, wanted);
    let run = builder.all("RUN").concat();
    for (path, node) in skeleton().iter() {
        if let Kind::File(bytes) = &node.kind {
            let text = String::from_utf8(bytes.clone())
                .unwrap()
                .replace('\n', "\\n");
            assert!(
                run.contains(&format!("printf '{text}' > /out/rootfs/{path}")),
                "{path}"
            );
        }
    }
    for arch in Arch::ALL {
        assert!(
            run.contains(arch.triple()) && run.contains(&format!("{}-gcc", arch.gnu())),
            "{arch}"
        );
    }
}

#[test]
fn what_it_copies_is_not_ignored() {
    let ignored = fs::read_to_string(crate::root().join(".dockerignore")).unwrap();
    let stages = stages();
    for line in stages["builder"].all("COPY") {
        let mut words: Vec<_> = line.split_whitespace().collect();
        words.pop();
        for word in words {
            assert!(
                ignored.lines().any(|line| line == format!("!{word}")),
                "{word}"
            );
            assert!(crate::root().join(word).exists(), "{word}");
        }
    }
    assert!(
        ignored
            .lines()
            .any(|line| line == "!target/images/prebuilt")
    );
}
