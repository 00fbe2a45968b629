use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use super::*;

/// One contract in memory.
struct Memory(String);

impl FileResolver for Memory {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == NAME {
            File::from_source(name, &self.0)
        } else {
            Err(protox::Error::file_not_found(name))
        }
    }
}

const NAME: &str = "baetyl/area/v1/area.proto";

const CONTRACT: &str = r#"
syntax = "proto3";
package baetyl.area.v1;

// Serves.
service AreaService {
  // Asks.
  rpc Ask(AskRequest) returns (AskResponse);
  // Follows.
  rpc Follow(FollowRequest) returns (stream FollowResponse);
}
message AskRequest {
  string name = 1;
  oneof choice {
    string text = 2;
    bytes data = 3;
  }
  uint32 count = 4;
}
message AskResponse { map<string, string> labels = 1; }
message FollowRequest {}
message FollowResponse { Kind kind = 1; }
// What it is.
enum Kind {
  KIND_UNSPECIFIED = 0;
  KIND_ONE = 1;
}
"#;

fn compile(contract: &str) -> FileDescriptorSet {
    let mut resolver = ChainFileResolver::new();
    resolver.add(Memory(contract.to_owned()));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_source_info(true);
    compiler.open_file(NAME).unwrap();
    compiler.file_descriptor_set()
}

/// The contract with these words replaced.
fn with(old: &str, new: &str) -> FileDescriptorSet {
    assert_eq!(CONTRACT.matches(old).count(), 1, "{old}");
    compile(&CONTRACT.replace(old, new))
}

/// What is said of that change.
fn refused(old: &str, new: &str) -> Vec<String> {
    breaking(&facts(&compile(CONTRACT)), &facts(&with(old, new)))
}

#[test]
fn what_breaks_an_old_peer_is_refused() {
    let changes = [
        ("string name = 1;", "", "was removed"),
        (
            "string name = 1;",
            "string name = 9;",
            "#1 (string name) was removed",
        ),
        (
            "string name = 1;",
            "bytes name = 1;",
            "from string name to bytes name",
        ),
        (
            "string name = 1;",
            "repeated string name = 1;",
            "to repeated string name",
        ),
        ("string name = 1;", "string title = 1;", "to string title"),
        (
            "string name = 1;",
            "optional string name = 1;",
            "to string name optional",
        ),
        // Into the oneof, and out of it.
        (
            "bytes data = 3;\n  }\n  uint32 count = 4;",
            "bytes data = 3;\n  uint32 count = 4;\n  }",
            "to uint32 count in oneof choice",
        ),
        (
            "bytes data = 3;\n  }",
            "}\n  bytes data = 3;",
            "from bytes data in oneof choice to bytes data",
        ),
        (
            "  rpc Ask(AskRequest) returns (AskResponse);\n",
            "",
            "rpc baetyl.area.v1.AreaService/Ask",
        ),
        (
            "rpc Ask(AskRequest)",
            "rpc Ask(stream AskRequest)",
            "to stream .baetyl",
        ),
        (
            "returns (stream FollowResponse)",
            "returns (FollowResponse)",
            "changed from",
        ),
        ("  KIND_ONE = 1;\n", "", "enum baetyl.area.v1.Kind#1"),
        (
            "  KIND_ONE = 1;",
            "  KIND_FIRST = 1;",
            "from KIND_ONE to KIND_FIRST",
        ),
    ];
    for (old, new, said) in changes {
        let faults = refused(old, new);
        assert!(
            faults.iter().any(|fault| fault.contains(said)),
            "{old:?} as {new:?}: {faults:?}"
        );
    }
}

#[test]
fn additions_are_not_refused() {
    let additions = [
        ("uint32 count = 4;", "uint32 count = 4;\n  string more = 5;"),
        ("bytes data = 3;", "bytes data = 3;\n    string more = 5;"),
        ("KIND_ONE = 1;", "KIND_ONE = 1;\n  KIND_TWO = 2;"),
        (
            "  // Follows.",
            "  // Tells.\n  rpc Tell(AskRequest) returns (AskResponse);\n  // Follows.",
        ),
    ];
    for (old, new) in additions {
        assert_eq!(refused(old, new), Vec::<String>::new(), "{new}");
    }
}

#[test]
fn a_contract_as_the_rules_say_has_no_faults() {
    assert_eq!(lint::faults(&compile(CONTRACT)), Vec::<String>::new());
}

#[test]
fn each_rule_is_told_when_it_is_broken() {
    let cases = [
        ("// Serves.\n", "", "AreaService has no comment"),
        ("  // Asks.\n", "", "Ask has no comment"),
        ("// What it is.\n", "", "Kind has no comment"),
        (
            "// What it is.",
            "message Extra {}\n// What it is.",
            "Extra has no comment",
        ),
        (
            "KIND_UNSPECIFIED = 0",
            "KIND_NONE = 0",
            "the first value of Kind",
        ),
        (
            "uint32 count",
            "uint32 theCount",
            "must be lower_snake_case",
        ),
        ("service AreaService", "service Area", "must end in Service"),
        (
            "rpc Ask(AskRequest)",
            "rpc Ask(FollowRequest)",
            "Ask must take",
        ),
        (
            "package baetyl.area.v1",
            "package baetyl.other.v1",
            "does not match the path",
        ),
    ];
    for (old, new, said) in cases {
        let faults = lint::faults(&with(old, new));
        assert!(
            faults.iter().any(|fault| fault.contains(said)),
            "{new:?}: {faults:?}"
        );
    }
}
