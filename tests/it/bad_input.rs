//! What `baetylctl apply` refuses, it refuses as a whole: a real cloud, the real program, no node.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Result, ensure};
use baetyl_tests::world::{Cloud, program};
use bytes::Bytes;
use http::Method;

/// A configuration that is fine, and what is fine of an application that uses it.
const CONFIG: &str = "apiVersion: baetyl/v1
kind: config
name: web-conf
data: [{key: a.txt, value: {type: kv, value: hello}}]
---
";
const APP: &str = "apiVersion: baetyl/v1
kind: app
name: web
mode: native
selector: site=north
volumes: [{name: conf, config: {name: web-conf}}]
";

struct Bench {
    dir: tempfile::TempDir,
    cloud: Cloud,
}

impl Bench {
    async fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("bt-").tempdir()?;
        let cloud = Cloud::start(&dir.path().join("cloud")).await?;
        Ok(Self { dir, cloud })
    }

    fn ctl(&self, args: &[&str]) -> Result<Output> {
        Ok(Command::new(program("baetylctl")?)
            .args(args)
            .env("BAETYLCTL_SERVER", self.cloud.address())
            .env("BAETYLCTL_TOKEN_FILE", self.cloud.token_file())
            .env("BAETYLCTL_CONFIG", self.dir.path().join("ctl.yaml"))
            .output()?)
    }

    fn apply(&self, documents: &str, more: &[&str]) -> Result<Output> {
        let file = self.dir.path().join("all.yaml");
        std::fs::write(&file, documents)?;
        let file: &Path = &file;
        let file = file.display().to_string();
        self.ctl(&[&["apply", "-f", &file], more].concat())
    }

    /// Fails unless the documents are refused with these words, and nothing of them is in the cloud.
    async fn refused(&self, documents: &str, more: &[&str], words: &[&str]) -> Result<()> {
        let output = self.apply(documents, more)?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success(), "accepted:\n{documents}");
        ensure!(!text.contains("panicked"), "{text}");
        for word in words {
            ensure!(text.contains(word), "{word:?} is not in:\n{text}");
        }
        let rest = self.cloud.rest()?;
        for path in ["/v1/configs/web-conf", "/v1/apps/web"] {
            let answer = rest.send(Method::GET, path, &[], Bytes::new()).await?;
            ensure!(answer.status == 404, "{path}: {}\n{text}", answer.status);
        }
        Ok(())
    }
}

#[tokio::test]
async fn what_is_wrong_in_one_document_keeps_all_of_them_from_being_written() -> Result<()> {
    let bench = Bench::start().await?;
    let app = |rest: &str| format!("{CONFIG}{APP}{rest}");
    bench
        .refused(
            &app("services: [{name: web, command: [run], imagePullPoliy: Never}]\n"),
            &[],
            &[
                "nothing was written",
                "app/web",
                "services[0].imagePullPoliy",
            ],
        )
        .await?;
    bench
        .refused(&app("services: none\n"), &[], &["app/web: services"])
        .await?;
    bench
        .refused(
            &app("services: [{name: web, command: [run]}]\nregistries: [{name: hub}]\n"),
            &[],
            &["app/web: registries[0].name: there is no registry \"hub\""],
        )
        .await?;
    bench
        .refused(
            &app("services: [{name: web, command: [run]}]\nlabels: []\n"),
            &["--prune", "set=shop"],
            &["app/web", "labels is a map"],
        )
        .await?;
    Ok(())
}

#[tokio::test]
async fn references_may_be_in_the_same_file_in_any_order_or_in_the_cloud() -> Result<()> {
    let bench = Bench::start().await?;
    let app = format!("{APP}services: [{{name: web, command: [run]}}]\n");
    bench
        .refused(
            &app,
            &[],
            &["volumes[0].config.name: there is no config \"web-conf\""],
        )
        .await?;
    for documents in [format!("{app}---\n{CONFIG}"), app.clone()] {
        let output = bench.apply(&documents, &[])?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let shown = bench.ctl(&["describe", "app", "web", "-o", "json"])?;
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout)?;
    ensure!(shown["name"] == "web", "{shown}");
    Ok(())
}

#[test]
fn a_reader_that_goes_away_is_no_fault() -> Result<()> {
    // Nobody reads from this pipe.
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let output = Command::new(program("baetylctl")?)
        .args(["completion", "bash"])
        .stdout(writer)
        .stderr(std::process::Stdio::piped())
        .spawn()?
        .wait_with_output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && told.is_empty(), "{told}");
    Ok(())
}
