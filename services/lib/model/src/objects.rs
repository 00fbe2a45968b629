//! Configurations with objects in kube mode: what the init container of a Pod makes on the machine it runs on.
//!
//! The runtime writes a [`StagePlan`] beside the plain items of the configuration; `baetyl-sync stage` reads it. The
//! directory it makes is named by [`directory_name`].

use serde::{Deserialize, Serialize};

use crate::desire::{ObjectRef, Unpack};
use crate::digest::Digest;
use crate::name::ConfigKey;

/// What belongs into the directory of one configuration besides its plain items. Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StagePlan {
    /// Most bytes that one archive may hold (engine's `objects.max_unpacked`).
    pub max_unpacked: u64,
    /// In the order of their file names; what comes later wins.
    pub objects: Vec<StagedObject>,
}

/// One object of a [`StagePlan`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StagedObject {
    /// Its name in the directory. Of an archive that is unpacked, only what it holds is there.
    pub file_name: ConfigKey,
    /// sha256 of the file's bytes.
    pub digest: Digest,
    /// Bytes; 0 when the author did not say.
    #[serde(default)]
    pub size: u64,
    /// How it is unpacked, into the directory itself.
    #[serde(default)]
    pub unpack: Unpack,
}

/// A plan that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// It is no plan.
    #[error("the plan of the objects cannot be read")]
    Malformed(#[source] serde_json::Error),
    /// It names nothing.
    #[error("the plan names no object: a configuration without objects needs no directory")]
    Empty,
}

impl StagePlan {
    /// The plan of one configuration, from the references of the release that uses it.
    pub fn of<'a>(objects: impl IntoIterator<Item = &'a ObjectRef>, max_unpacked: u64) -> Self {
        let staged = |object: &ObjectRef| StagedObject {
            file_name: object.file_name.clone(),
            digest: object.digest,
            size: object.size,
            unpack: object.unpack,
        };
        let mut objects: Vec<_> = objects.into_iter().map(staged).collect();
        objects.sort_by(|a, b| a.file_name.cmp(&b.file_name));
        Self {
            max_unpacked,
            objects,
        }
    }

    /// The plan as a file. Equal plans are equal bytes.
    ///
    /// # Errors
    /// What serde says; a plan always serialises.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// Reads what [`to_json`](Self::to_json) wrote, in this release or a later one.
    ///
    /// # Errors
    /// When it is no plan, or names no object.
    pub fn from_json(json: &[u8]) -> Result<Self, PlanError> {
        let plan: Self = serde_json::from_slice(json).map_err(PlanError::Malformed)?;
        if plan.objects.is_empty() {
            return Err(PlanError::Empty);
        }
        Ok(plan)
    }
}

/// The name of the directory of a configuration below the directory of objects: 64 hex digits.
pub fn directory_name(configuration: &Digest) -> String {
    configuration.hex()
}

/// The configuration whose directory has this name; None for every other name.
pub fn configuration_of(directory_name: &str) -> Option<Digest> {
    format!("sha256:{directory_name}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(file: &str, byte: u8, unpack: Unpack) -> ObjectRef {
        ObjectRef {
            digest: Digest::from_sha256([byte; 32]),
            size: 7,
            url: None,
            configuration: "models".try_into().unwrap(),
            configuration_version: "3".try_into().unwrap(),
            file_name: file.try_into().unwrap(),
            unpack,
        }
    }

    #[test]
    fn a_plan_is_read_as_it_was_written_and_does_not_depend_on_the_order_of_references() {
        let (a, b) = (
            object("a.bin", 1, Unpack::None),
            object("b.zip", 2, Unpack::Zip),
        );
        let plan = StagePlan::of([&b, &a], 100);
        assert_eq!(plan, StagePlan::of([&a, &b], 100));
        let json = plan.to_json().unwrap();
        assert_eq!(StagePlan::from_json(&json).unwrap(), plan);
        let text = String::from_utf8(json).unwrap();
        assert!(
            text.contains(r#""maxUnpacked":100"#) && text.contains(r#""fileName":"a.bin""#),
            "{text}"
        );
    }

    #[test]
    fn fields_of_a_later_release_are_passed_over_and_rubbish_is_refused() {
        let digest = Digest::from_sha256([1; 32]);
        let later = format!(
            r#"{{"maxUnpacked":1,"later":true,"objects":[{{"fileName":"f","digest":"{digest}","new":1}}]}}"#
        );
        let plan = StagePlan::from_json(later.as_bytes()).unwrap();
        assert_eq!(
            (plan.objects[0].size, plan.objects[0].unpack),
            (0, Unpack::None)
        );
        for text in [
            "",
            "{}",
            r#"{"maxUnpacked":1,"objects":[]}"#,
            r#"{"maxUnpacked":1,"objects":[{"fileName":"../f","digest":"x"}]}"#,
        ] {
            assert!(StagePlan::from_json(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_directory_is_named_by_its_configuration_and_by_nothing_else() {
        let digest = Digest::from_sha256([0xab; 32]);
        assert_eq!(configuration_of(&directory_name(&digest)), Some(digest));
        for name in ["", "lost+found", &"AB".repeat(32), &digest.to_string()] {
            assert_eq!(configuration_of(name), None, "{name}");
        }
    }
}
