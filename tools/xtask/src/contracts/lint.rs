//! Names, packages and comments as `proto/README.md` asks for.

use std::collections::BTreeSet;

use prost_types::{
    DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    ServiceDescriptorProto,
};

/// Field numbers of `descriptor.proto`, of which paths to comments are made.
mod at {
    pub(super) const MESSAGE: i32 = 4;
    pub(super) const ENUM: i32 = 5;
    pub(super) const SERVICE: i32 = 6;
    pub(super) const METHOD: i32 = 2;
    pub(super) const NESTED_MESSAGE: i32 = 3;
    pub(super) const NESTED_ENUM: i32 = 4;
}

/// Everything that is not as the rules say.
pub(super) fn faults(set: &FileDescriptorSet) -> Vec<String> {
    let ours = set
        .file
        .iter()
        .filter(|file| file.package().starts_with("baetyl."));
    ours.flat_map(|file| {
        let mut lint = Lint::new(file);
        lint.file();
        lint.faults
    })
    .collect()
}

struct Lint<'a> {
    file: &'a FileDescriptorProto,
    /// Paths of what has a comment before it.
    commented: BTreeSet<&'a [i32]>,
    /// Requests and responses: the comment of their method says what they are.
    of_methods: BTreeSet<String>,
    faults: Vec<String>,
}

impl<'a> Lint<'a> {
    fn new(file: &'a FileDescriptorProto) -> Self {
        let info = file.source_code_info.iter();
        let commented = info
            .flat_map(|info| &info.location)
            .filter(|location| !location.leading_comments().trim().is_empty())
            .map(|location| location.path.as_slice())
            .collect();
        let methods = file.service.iter().flat_map(|service| &service.method);
        let of_methods = methods
            .flat_map(|method| ["Request", "Response"].map(|end| format!("{}{end}", method.name())))
            .collect();
        Self {
            file,
            commented,
            of_methods,
            faults: Vec::new(),
        }
    }

    fn fault(&mut self, fault: String) {
        self.faults.push(format!("{}: {fault}", self.file.name()));
    }

    fn want_comment(&mut self, path: &[i32], what: &str) {
        if !self.commented.contains(path) {
            self.fault(format!("{what} has no comment"));
        }
    }

    fn file(&mut self) {
        let file = self.file;
        if !file.name().starts_with(&file.package().replace('.', "/")) {
            self.fault(format!(
                "package {} does not match the path",
                file.package()
            ));
        }
        for (i, service) in (0..).zip(&file.service) {
            self.service(&[at::SERVICE, i], service);
        }
        for (i, message) in (0..).zip(&file.message_type) {
            self.message(&[at::MESSAGE, i], message);
        }
        for (i, enumeration) in (0..).zip(&file.enum_type) {
            self.enumeration(&[at::ENUM, i], enumeration);
        }
    }

    fn service(&mut self, path: &[i32], service: &ServiceDescriptorProto) {
        if !service.name().ends_with("Service") {
            self.fault(format!("service {} must end in Service", service.name()));
        }
        self.want_comment(path, service.name());
        for (i, method) in (0..).zip(&service.method) {
            self.want_comment(&[path, &[at::METHOD, i]].concat(), method.name());
            let full = format!(".{}.{}", self.file.package(), method.name());
            let (request, response) = (format!("{full}Request"), format!("{full}Response"));
            if method.input_type() != request || method.output_type() != response {
                let name = method.name();
                self.fault(format!("{name} must take {request} and give {response}"));
            }
        }
    }

    fn message(&mut self, path: &[i32], message: &DescriptorProto) {
        if !self.of_methods.contains(message.name()) {
            self.want_comment(path, message.name());
        }
        for field in &message.field {
            if field.name().chars().any(|c| c.is_ascii_uppercase()) {
                let (message, field) = (message.name(), field.name());
                self.fault(format!("{message}.{field} must be lower_snake_case"));
            }
        }
        for (i, enumeration) in (0..).zip(&message.enum_type) {
            self.enumeration(&[path, &[at::NESTED_ENUM, i]].concat(), enumeration);
        }
        let nested = (0..).zip(&message.nested_type);
        // The entries of a map are the compiler's.
        for (i, nested) in nested.filter(|(_, nested)| !is_map_entry(nested)) {
            self.message(&[path, &[at::NESTED_MESSAGE, i]].concat(), nested);
        }
    }

    fn enumeration(&mut self, path: &[i32], enumeration: &EnumDescriptorProto) {
        self.want_comment(path, enumeration.name());
        let zero = enumeration.value.first();
        if !zero.is_some_and(|value| value.number() == 0 && value.name().ends_with("_UNSPECIFIED"))
        {
            let name = enumeration.name();
            self.fault(format!(
                "the first value of {name} must be …_UNSPECIFIED = 0"
            ));
        }
    }
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    message
        .options
        .as_ref()
        .is_some_and(|options| options.map_entry())
}
