//! Contexts: named clouds, in `$XDG_CONFIG_HOME/baetyl/config.yaml`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{env, fs};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::cli::ServerArgs;

/// Where a cloud is and how to prove oneself. The token itself stays in its file.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Target {
    pub(crate) server: String,
    pub(crate) token_file: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
}

/// All remembered contexts.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Contexts {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    current: Option<String>,
    #[serde(default)]
    contexts: BTreeMap<String, Target>,
}

impl Contexts {
    fn path() -> Result<PathBuf> {
        if let Some(file) = env::var_os("BAETYLCTL_CONFIG") {
            return Ok(file.into());
        }
        let base = env::var_os("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")))
            .context("neither XDG_CONFIG_HOME nor HOME is set; set BAETYLCTL_CONFIG to a file")?;
        Ok(base.join("baetyl/config.yaml"))
    }

    pub(crate) fn load() -> Result<Self> {
        let path = Self::path()?;
        match fs::read_to_string(&path) {
            Ok(text) => serde_norway::from_str(&text)
                .with_context(|| format!("{} is not readable", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    pub(crate) fn save(&self) -> Result<()> {
        let path = Self::path()?;
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        fs::write(&path, serde_norway::to_string(self)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    pub(crate) fn set(&mut self, name: &str, target: Target) {
        self.contexts.insert(name.to_owned(), target);
        self.current = Some(name.to_owned());
    }

    pub(crate) fn select(&mut self, name: &str) -> Result<()> {
        if !self.contexts.contains_key(name) {
            bail!("there is no context {name:?}; `baetylctl context list` shows them");
        }
        self.current = Some(name.to_owned());
        Ok(())
    }

    pub(crate) fn delete(&mut self, name: &str) -> Result<()> {
        if self.contexts.remove(name).is_none() {
            bail!("there is no context {name:?}; `baetylctl context list` shows them");
        }
        if self.is_current(name) {
            self.current = None;
        }
        Ok(())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Target)> {
        self.contexts.iter()
    }

    pub(crate) fn is_current(&self, name: &str) -> bool {
        self.current.as_deref() == Some(name)
    }

    fn get(&self, name: Option<&str>) -> Result<Option<&Target>> {
        match name.or(self.current.as_deref()) {
            None => Ok(None),
            Some(name) => match self.contexts.get(name) {
                Some(target) => Ok(Some(target)),
                None => bail!("there is no context {name:?}; `baetylctl context list` shows them"),
            },
        }
    }
}

/// The cloud to talk to: flags and environment first, then the chosen or current context.
///
/// # Errors
/// When no address or no token is known.
pub(crate) fn resolve(args: &ServerArgs) -> Result<Target> {
    let contexts = Contexts::load()?;
    let base = contexts.get(args.context.as_deref())?;
    let server = args.server.clone().or_else(|| base.map(|base| base.server.clone())).context(
        "no cloud is known: use `baetylctl context set NAME --address URL --token FILE`, or --server and --token-file",
    )?;
    let token_file = args
        .token_file
        .clone()
        .or_else(|| base.map(|base| base.token_file.clone()))
        .context("no token is known: use --token-file, or a context")?;
    let ca_file = args
        .ca_file
        .clone()
        .or_else(|| base.and_then(|base| base.ca_file.clone()));
    Ok(Target {
        server,
        token_file,
        ca_file,
    })
}
