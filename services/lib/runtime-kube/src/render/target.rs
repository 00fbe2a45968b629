//! Where the objects of YAML and Helm applications go.

use baetyl_model::resource::label;

use super::RenderError;
use super::build::Build;
use crate::names;

/// The namespace an application's label names, else the one of all applications.
pub(super) fn namespace<'a>(build: &Build<'a>) -> Result<&'a str, RenderError> {
    let Some(custom) = build.app.labels.get(label::CUSTOM_NAMESPACE) else {
        return Ok(build.namespace);
    };
    if !names::is_label(custom) {
        return Err(RenderError::ObjectName {
            what: "namespace",
            name: custom.clone(),
            rule: "a namespace has 1 to 63 characters of a-z, 0-9 and '-', beginning and ending with a letter or digit",
        });
    }
    let own = [names::USER_NAMESPACE, names::SYSTEM_NAMESPACE];
    if own.contains(&custom.as_str()) && custom != build.namespace {
        return Err(RenderError::Reserved {
            what: "namespace",
            name: custom.clone(),
        });
    }
    Ok(custom)
}
