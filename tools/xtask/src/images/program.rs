//! What a program must be to lie alone in an image: for the right machine, static, and silent about this one.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

use super::arch::Arch;

/// The entry of a program's table that names a loader of libraries (`PT_INTERP`).
const INTERPRETER: u32 = 3;

/// Checks a program before it goes into an image. `private` are directories of this machine that it must not name.
///
/// # Errors
/// When it is missing, for another machine, needs libraries, or names such a directory.
pub(crate) fn check(path: &Path, arch: Arch, private: &[(String, &str)]) -> Result<()> {
    let told = path.display();
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {told}"))?;
    check_bytes(&bytes, arch, private).with_context(|| format!("{told} cannot go into an image"))
}

fn check_bytes(bytes: &[u8], arch: Arch, private: &[(String, &str)]) -> Result<()> {
    let (machine, is_wide) = arch.elf();
    ensure!(bytes.starts_with(b"\x7fELF"), "it is no program of Linux");
    let wide = bytes.get(4) == Some(&2);
    ensure!(
        half(bytes, 18) == Some(machine) && wide == is_wide && bytes.get(5) == Some(&1),
        "it is a program for another machine than {arch}"
    );
    if has_interpreter(bytes, is_wide).context("its header is damaged")? {
        bail!("it needs libraries: it was not built with target-feature=+crt-static");
    }
    for (path, _) in private {
        if names(bytes, path.as_bytes()) {
            bail!("it names the directory {path} of this machine, so it differs on another one");
        }
    }
    Ok(())
}

/// Whether the table of segments names a loader.
fn has_interpreter(bytes: &[u8], is_wide: bool) -> Option<bool> {
    let (table, size, count) = match is_wide {
        true => (long(bytes, 32)?, half(bytes, 54)?, half(bytes, 56)?),
        false => (
            u64::from(word(bytes, 28)?),
            half(bytes, 42)?,
            half(bytes, 44)?,
        ),
    };
    let table = usize::try_from(table).ok()?;
    let mut found = false;
    for at in 0..usize::from(count) {
        let kind = word(bytes, table.checked_add(at * usize::from(size))?)?;
        found |= kind == INTERPRETER;
    }
    Some(found)
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    take(bytes, at).map(u16::from_le_bytes)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    take(bytes, at).map(u32::from_le_bytes)
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    take(bytes, at).map(u64::from_le_bytes)
}

fn names(bytes: &[u8], wanted: &[u8]) -> bool {
    let Some(first) = wanted.first() else {
        return false;
    };
    let mut starts = bytes.iter().enumerate().filter(|(_, byte)| *byte == first);
    starts.any(|(at, _)| bytes.get(at..).is_some_and(|rest| rest.starts_with(wanted)))
}

/// The smallest file with the header of a program for this machine, with or without a loader; for tests.
#[cfg(test)]
pub(crate) fn smallest(arch: Arch, is_static: bool) -> Vec<u8> {
    let (machine, is_wide) = arch.elf();
    let mut bytes = vec![0; 96];
    bytes[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 1 + u8::from(is_wide), 1]);
    bytes[18..20].copy_from_slice(&machine.to_le_bytes());
    let (table, sizes) = if is_wide { (32, 54) } else { (28, 42) };
    bytes[table] = 64;
    bytes[sizes..sizes + 4].copy_from_slice(&[32, 0, 1, 0]);
    bytes[64] = if is_static { 1 } else { 3 };
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_static_program_for_the_machine_is_taken() {
        for arch in Arch::ALL {
            check_bytes(&smallest(arch, true), arch, &[]).unwrap();
        }
    }

    #[test]
    fn a_program_that_needs_libraries_is_refused() {
        for arch in Arch::ALL {
            let error = check_bytes(&smallest(arch, false), arch, &[]).unwrap_err();
            assert!(error.to_string().contains("needs libraries"), "{error}");
        }
    }

    #[test]
    fn a_program_for_another_machine_is_refused() {
        let error = check_bytes(&smallest(Arch::Arm64, true), Arch::ArmV7, &[]).unwrap_err();
        assert!(error.to_string().contains("arm/v7"), "{error}");
    }

    #[test]
    fn what_is_no_program_or_cut_off_is_refused() {
        assert!(check_bytes(b"#!/bin/sh\n", Arch::Amd64, &[]).is_err());
        let cut = &smallest(Arch::Amd64, true)[..60];
        assert!(check_bytes(cut, Arch::Amd64, &[]).is_err());
    }

    #[test]
    fn a_program_that_tells_where_it_was_built_is_refused() {
        let mut bytes = smallest(Arch::Amd64, true);
        bytes.extend_from_slice(b"panicked at /home/me/baetyl/src/lib.rs");
        let private = [("/home/me/baetyl".to_owned(), "/baetyl")];
        let error = check_bytes(&bytes, Arch::Amd64, &private).unwrap_err();
        assert!(error.to_string().contains("/home/me/baetyl"), "{error}");
        assert!(check_bytes(&bytes, Arch::Amd64, &[("/home/you".to_owned(), "/baetyl")]).is_ok());
    }

    #[test]
    fn this_test_itself_needs_libraries() {
        if let Some(arch) = Arch::host() {
            let error = check(&std::env::current_exe().unwrap(), arch, &[]).unwrap_err();
            assert!(
                format!("{error:#}").contains("needs libraries"),
                "{error:#}"
            );
        }
    }
}
