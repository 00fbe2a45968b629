//! The main job, step by step: what `cargo xtask demo` tells and `demo --check` asserts.
//!
//! Every step does what a user would do (REST, `baetylctl`, an install command, `kill -9`) and asserts what the user would see.

mod down;
mod up;

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::edge::Edge;
use crate::rest::Rest;
use crate::world::{Cloud, Shape, program};

/// Where the commentary goes.
pub trait Narrator {
    /// A step begins.
    fn step(&mut self, number: usize, title: &str);
    /// Something was seen.
    fn say(&mut self, line: &str);
    /// The last step ended.
    fn end(&mut self) {}
}

/// A narrator for tests: what is said appears only when the test fails.
#[derive(Debug, Default)]
pub struct Quiet;

#[allow(clippy::print_stdout, reason = "the test harness captures it")]
impl Narrator for Quiet {
    fn step(&mut self, number: usize, title: &str) {
        println!("{number}. {title}");
    }
    fn say(&mut self, line: &str) {
        println!("   {line}");
    }
}

/// The running story.
pub struct Story<N> {
    /// Where everything lies.
    pub dir: PathBuf,
    /// The cloud, from step 1.
    pub cloud: Cloud,
    /// A client with the admin token.
    pub rest: Rest,
    /// The edge node `north-1`, from step 2.
    pub edge: Edge,
    narrator: N,
}

/// Name of the node that is installed.
pub const NODE: &str = "north-1";
/// Name of the node that is only described.
pub const OTHER: &str = "south-1";

impl<N: Narrator> Story<N> {
    /// Steps 1 and 2: a cloud on an empty directory, two nodes, one of them activated.
    ///
    /// # Errors
    /// When something is not as told.
    pub async fn begin(dir: PathBuf, shape: Shape, mut narrator: N) -> Result<Self> {
        narrator.step(1, "The cloud starts on an empty directory");
        let start = Instant::now();
        let cloud = Cloud::start(&dir.join("cloud")).await?;
        narrator.say(&format!(
            "ready after {:.1?} at {}",
            start.elapsed(),
            cloud.address()
        ));
        let rest = cloud.rest()?;
        let stranger = rest
            .with_token(None)
            .send(http::Method::GET, "/v1/nodes", &[], bytes::Bytes::new())
            .await?;
        ensure!(
            stranger.status == 401,
            "a request without token gets {}",
            stranger.status
        );
        narrator.say("a request without token gets 401");
        let edge = Edge::new(NODE, &dir.join("edge"), shape)?;
        let mut story = Self {
            dir,
            cloud,
            rest,
            edge,
            narrator,
        };
        story.install().await?;
        Ok(story)
    }

    /// All steps after the second.
    ///
    /// # Errors
    /// When something is not as told.
    pub async fn tell(&mut self) -> Result<()> {
        self.node_is_online().await.context("step 3")?;
        self.apply().await.context("step 4")?;
        self.functions_answer().await.context("step 5")?;
        self.changes().await.context("step 6")?;
        self.bad_releases().await.context("step 7")?;
        self.dark().await.context("step 8")?;
        self.cloud_returns().await.context("step 9")?;
        self.properties_and_removal().await.context("step 10")?;
        self.narrator.end();
        Ok(())
    }

    pub(crate) fn step(&mut self, number: usize, title: &str) {
        self.narrator.step(number, title);
    }

    pub(crate) fn say(&mut self, line: impl Display) {
        self.narrator.say(&line.to_string());
    }

    /// Runs `baetylctl` against the cloud.
    ///
    /// # Errors
    /// When it fails; with what it printed.
    pub fn ctl(&self, args: &[&str]) -> Result<String> {
        let output = std::process::Command::new(program("baetylctl")?)
            .args(args)
            .env("BAETYLCTL_SERVER", self.cloud.address())
            .env("BAETYLCTL_TOKEN_FILE", self.cloud.token_file())
            .env("BAETYLCTL_CONFIG", self.dir.join("ctl.yaml"))
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "baetylctl {args:?} failed:\n{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(text)
    }
}
