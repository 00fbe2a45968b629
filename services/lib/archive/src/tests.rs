#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Write as _;

use super::*;

const LIMIT: u64 = 1 << 20;

fn tar_of(entries: &[(&str, tar::EntryType, &str, u32)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, content, mode) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        // Written directly: the builder itself refuses names that lead out.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        if matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link) {
            header.as_mut_bytes()[157..157 + content.len()].copy_from_slice(content.as_bytes());
            header.set_size(0);
            header.set_cksum();
            builder.append(&header, &[][..]).unwrap();
        } else {
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, content.as_bytes()).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

struct Case {
    dir: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("out")).unwrap();
        Self { dir }
    }

    fn out(&self, name: &str) -> PathBuf {
        self.dir.path().join("out").join(name)
    }

    fn unpack(&self, bytes: &[u8], format: Unpack, limit: u64) -> Result<(), ArchiveError> {
        let file = self.dir.path().join("archive");
        fs::write(&file, bytes).unwrap();
        unpack(&file, format, &self.dir.path().join("out"), limit)
    }
}

const FILE: tar::EntryType = tar::EntryType::Regular;
const LINK: tar::EntryType = tar::EntryType::Symlink;

#[test]
fn a_tgz_package_keeps_its_files_their_execute_bits_and_its_inner_links() {
    let tar = tar_of(&[
        ("bin/app", FILE, "#!/bin/sh\n", 0o4755),
        ("program.yml", FILE, "entry: bin/app\n", 0o644),
        ("current", LINK, "bin/app", 0o777),
    ]);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&tar).unwrap();
    let case = Case::new();
    case.unpack(&gz.finish().unwrap(), Unpack::Tgz, LIMIT)
        .unwrap();
    let mode = fs::metadata(case.out("bin/app"))
        .unwrap()
        .permissions()
        .mode()
        & 0o7777;
    assert_eq!(mode, 0o755, "execute bit kept, set-uid bit dropped");
    assert_eq!(
        fs::read_to_string(case.out("program.yml")).unwrap(),
        "entry: bin/app\n"
    );
    assert_eq!(
        fs::read_to_string(case.out("current")).unwrap(),
        "#!/bin/sh\n"
    );
}

#[test]
fn a_zip_package_keeps_its_files_and_their_execute_bits() {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    zip.start_file("code/index.py", options).unwrap();
    zip.write_all(b"def handler(event, context): pass\n")
        .unwrap();
    zip.start_file("run", options.unix_permissions(0o755))
        .unwrap();
    zip.write_all(b"#!/bin/sh\n").unwrap();
    let case = Case::new();
    case.unpack(&zip.finish().unwrap().into_inner(), Unpack::Zip, LIMIT)
        .unwrap();
    assert!(
        fs::read_to_string(case.out("code/index.py"))
            .unwrap()
            .starts_with("def handler")
    );
    assert_eq!(
        fs::metadata(case.out("run")).unwrap().permissions().mode() & 0o111,
        0o111
    );
}

#[test]
fn names_and_links_that_lead_outside_are_refused_and_write_nothing_there() {
    for entries in [
        &[("../evil", FILE, "x", 0o644)][..],
        &[("/tmp/../evil", FILE, "x", 0o644)],
        &[("a/../../evil", FILE, "x", 0o644)],
        &[("out", LINK, "../..", 0o777)],
        &[("out", LINK, "/etc", 0o777)],
        &[("d/out", LINK, "../../evil", 0o777)],
        &[("d", LINK, ".", 0o777), ("d/evil", FILE, "x", 0o644)],
        &[("copy", tar::EntryType::Link, "../archive", 0o644)],
    ] {
        let case = Case::new();
        let error = case
            .unpack(&tar_of(entries), Unpack::Tar, LIMIT)
            .unwrap_err();
        assert!(
            matches!(error, ArchiveError::Outside { .. }),
            "{entries:?}: {error:?}"
        );
        assert!(!case.dir.path().join("evil").exists());
    }
}

#[test]
fn an_archive_that_grows_beyond_the_limit_is_refused() {
    let case = Case::new();
    let big = "x".repeat(3000);
    let tar = tar_of(&[("a", FILE, &big, 0o644), ("b", FILE, &big, 0o644)]);
    let error = case.unpack(&tar, Unpack::Tar, 4000).unwrap_err();
    assert!(
        matches!(error, ArchiveError::TooLarge { limit: 4000 }),
        "{error:?}"
    );
}

#[test]
fn a_damaged_archive_is_an_error_and_not_a_panic() {
    for format in [Unpack::Zip, Unpack::Tar, Unpack::Tgz] {
        let error = Case::new().unpack(&[7; 700], format, LIMIT).unwrap_err();
        assert!(error.to_string().contains(format.as_str()), "{error}");
    }
}

#[test]
fn a_repeated_entry_wins_over_the_earlier_one() {
    let case = Case::new();
    let tar = tar_of(&[("a", FILE, "old", 0o644), ("a", FILE, "new", 0o644)]);
    case.unpack(&tar, Unpack::Tar, LIMIT).unwrap();
    assert_eq!(fs::read_to_string(case.out("a")).unwrap(), "new");
}
