//! The three architectures images are built for, and what each is called by whom.

use std::fmt;
use std::str::FromStr;

use anyhow::{Error, bail};
use serde::{Serialize, Serializer};

/// An architecture, in the order of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Arch {
    /// x86, 64 bits.
    Amd64,
    /// ARM, 64 bits.
    Arm64,
    /// ARM, 32 bits with hardware floating point.
    ArmV7,
}

impl Arch {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Amd64, Self::Arm64, Self::ArmV7];

    /// That of this machine, when it is one of the three.
    pub(crate) fn host() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::Amd64),
            "aarch64" => Some(Self::Arm64),
            "arm" => Some(Self::ArmV7),
            _ => None,
        }
    }

    /// `architecture` of a platform in an image.
    pub(crate) fn oci(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
            Self::ArmV7 => "arm",
        }
    }

    /// `variant` of a platform in an image.
    pub(crate) fn variant(self) -> Option<&'static str> {
        (self == Self::ArmV7).then_some("v7")
    }

    /// The directory of this architecture: `TARGETARCH` and `TARGETVARIANT` of a Dockerfile, joined.
    pub(crate) fn dir(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
            Self::ArmV7 => "armv7",
        }
    }

    /// What Debian calls it.
    pub(crate) fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
            Self::ArmV7 => "armhf",
        }
    }

    /// What the Rust compiler calls it.
    pub(crate) fn triple(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
            Self::ArmV7 => "armv7-unknown-linux-gnueabihf",
        }
    }

    /// What the GNU tools call it: before `-gcc`, and in the paths of libraries.
    pub(crate) fn gnu(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-linux-gnu",
            Self::Arm64 => "aarch64-linux-gnu",
            Self::ArmV7 => "arm-linux-gnueabihf",
        }
    }

    /// The loader of libraries of Debian's C library.
    pub(crate) fn loader(self) -> &'static str {
        match self {
            Self::Amd64 => "ld-linux-x86-64.so.2",
            Self::Arm64 => "ld-linux-aarch64.so.1",
            Self::ArmV7 => "ld-linux-armhf.so.3",
        }
    }

    /// The program that runs its programs on another machine.
    pub(crate) fn emulator(self) -> &'static str {
        match self {
            Self::Amd64 => "qemu-x86_64-static",
            Self::Arm64 => "qemu-aarch64-static",
            Self::ArmV7 => "qemu-arm-static",
        }
    }

    /// `e_machine` and whether it has 64 bits, in the header of a program.
    pub(crate) fn elf(self) -> (u16, bool) {
        match self {
            Self::Amd64 => (62, true),
            Self::Arm64 => (183, true),
            Self::ArmV7 => (40, false),
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ArmV7 => "arm/v7",
            _ => self.oci(),
        })
    }
}

impl FromStr for Arch {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Ok(match text.trim_start_matches("linux/") {
            "amd64" | "x86_64" => Self::Amd64,
            "arm64" | "aarch64" => Self::Arm64,
            "arm/v7" | "armv7" | "armhf" => Self::ArmV7,
            _ => {
                bail!("{text:?} is no architecture images are built for: amd64, arm64 or arm/v7")
            }
        })
    }
}

impl Serialize for Arch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_read_as_it_is_written() {
        for arch in Arch::ALL {
            for text in [
                arch.to_string(),
                format!("linux/{arch}"),
                arch.dir().to_owned(),
            ] {
                assert_eq!(text.parse::<Arch>().unwrap(), arch, "{text}");
            }
        }
    }

    #[test]
    fn another_one_is_refused_with_the_list() {
        let error = "riscv64".parse::<Arch>().unwrap_err().to_string();
        assert!(
            error.contains("riscv64") && error.contains("arm/v7"),
            "{error}"
        );
    }
}
