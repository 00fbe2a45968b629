//! What the parts of one rendering share.

use std::collections::BTreeMap;

use baetyl_model::Application;
use baetyl_model::labels::validate_value;
use baetyl_model::name::ServiceName;
use baetyl_model::resource::Strategy;
use baetyl_model::workload::{WHOLE, WorkloadKey};

use super::{RenderError, Rendered, Request, Workload};
use crate::names;
use crate::object::Object;

/// What the parts of one rendering share: the request, what they found to warn of, and the ConfigMaps and Secrets they
/// refer to.
pub(super) struct Build<'a> {
    pub(super) request: &'a Request<'a>,
    pub(super) app: &'a Application,
    pub(super) namespace: &'static str,
    pub(super) name: &'a str,
    pub(super) version: &'a str,
    /// By (position of the kind, name): each once, in the order they are applied.
    content: BTreeMap<(u8, String), Object>,
    warnings: Vec<String>,
}

impl<'a> Build<'a> {
    pub(super) fn new(request: &'a Request<'a>) -> Result<Self, RenderError> {
        let release = request.release;
        let build = Self {
            request,
            app: request.app,
            namespace: names::namespace(release.system),
            name: release.app.name.as_str(),
            version: release.app.version.as_str(),
            content: BTreeMap::new(),
            warnings: Vec::new(),
        };
        if validate_value(names::APP_VERSION, build.version).is_err() {
            return Err(RenderError::ObjectName {
                what: "version",
                name: build.version.to_owned(),
                rule: "it becomes a label, which has at most 63 characters and ends with a letter or digit",
            });
        }
        if release.system {
            for name in [build.name, names::service(build.name, true)] {
                if names::CORE_NAMES.contains(&name) {
                    return Err(RenderError::Reserved {
                        what: "application",
                        name: name.to_owned(),
                    });
                }
            }
        }
        Ok(build)
    }

    pub(super) fn system(&self) -> bool {
        self.request.release.system
    }

    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        names::labels(self.name, self.version)
    }

    pub(super) fn warn(&mut self, sentence: impl Into<String>) {
        let sentence = sentence.into();
        if !self.warnings.contains(&sentence) {
            self.warnings.push(sentence);
        }
    }

    /// An object of the application's own.
    pub(super) fn object(
        &self,
        kind: (&str, &str),
        name: &str,
        rest: impl Into<serde_json::Map<String, serde_json::Value>>,
    ) -> Object {
        Object::new(kind, self.namespace, name, &self.labels(), rest)
    }

    /// Takes in a ConfigMap or Secret; gives its name.
    pub(super) fn keep(&mut self, object: Object) -> String {
        let name = object.name.clone();
        let rank = u8::from(object.kind == "Secret");
        self.content.insert((rank, name.clone()), object);
        name
    }

    /// The result: what was kept, then `objects`.
    pub(super) fn finish(
        self,
        kind: Workload,
        wanted: Option<u32>,
        objects: impl IntoIterator<Item = Object>,
    ) -> Result<Rendered, RenderError> {
        let release = self.request.release;
        let key = WorkloadKey {
            namespace: self.namespace.try_into()?,
            app: release.app.name.clone(),
            version: release.app.version.clone(),
            service: ServiceName::new(WHOLE)?,
        };
        Ok(Rendered {
            key,
            objects: self.content.into_values().chain(objects).collect(),
            wanted,
            kind,
            preserve: self.app.preserve_updates,
            exclusive: self.app.strategy() == Strategy::Recreate,
            warnings: self.warnings,
        })
    }
}
