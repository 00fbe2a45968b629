//! Trees are plain directories here: what matters is what is written where.

use super::*;
use crate::spec::{Instances as _, WorkloadKey};

const HYBRID: &str = "\
30 24 0:25 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:26 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
32 30 0:27 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

fn id() -> InstanceId {
    let key = WorkloadKey {
        namespace: "baetyl-edge".try_into().unwrap(),
        app: "app".try_into().unwrap(),
        version: "1".try_into().unwrap(),
        service: "main".try_into().unwrap(),
    };
    key.instance(1)
}

#[test]
fn our_place_in_each_tree_is_found_from_what_is_mounted_of_it() {
    let machine = Machine::parse(
        HYBRID,
        "4:memory:/docker/abc/sub\n1:cpu,cpuacct:/user\n0::/init.scope\n",
    );
    let unified = (
        PathBuf::from("/sys/fs/cgroup/unified"),
        PathBuf::from("/sys/fs/cgroup/unified/init.scope"),
    );
    assert_eq!(
        machine,
        Machine {
            unified: Some(unified),
            memory: Some("/sys/fs/cgroup/memory/sub".into()),
            cpu: Some("/sys/fs/cgroup/cpu,cpuacct/user".into()),
        }
    );
    assert_eq!(Machine::parse("", ""), Machine::default());
}

#[test]
fn a_group_of_our_own_is_split_into_us_and_the_instances() {
    let tree = tempfile::tempdir().unwrap();
    let own = tree.path().join("baetyl.service");
    fs::create_dir(&own).unwrap();
    fs::write(own.join("cgroup.controllers"), "cpu io memory pids").unwrap();
    fs::write(own.join("cgroup.procs"), "77\n").unwrap();
    let machine = Machine {
        unified: Some((tree.path().to_owned(), own.clone())),
        ..Machine::default()
    };
    assert_eq!(
        Cgroups::on(&machine, "tag", 77),
        Cgroups::V2(own.join("tag"))
    );
    assert_eq!(
        fs::read_to_string(own.join("baetyl-core/cgroup.procs")).unwrap(),
        "77"
    );
    assert_eq!(
        fs::read_to_string(own.join("tag/cgroup.subtree_control")).unwrap(),
        "+memory +cpu"
    );
}

#[test]
fn as_root_the_groups_are_outside_the_unit_so_that_its_next_process_has_a_place() {
    let tree = tempfile::tempdir().unwrap();
    let own = tree.path().join("system.slice/baetyl.service");
    fs::create_dir_all(&own).unwrap();
    for dir in [tree.path(), &own] {
        fs::write(dir.join("cgroup.controllers"), "cpu memory").unwrap();
    }
    fs::write(own.join("cgroup.procs"), "77\n").unwrap();
    let machine = Machine {
        unified: Some((tree.path().to_owned(), own.clone())),
        ..Machine::default()
    };
    assert_eq!(
        Cgroups::on(&machine, "tag", 77),
        Cgroups::V2(tree.path().join("tag"))
    );
    assert!(!own.join("cgroup.subtree_control").exists());
    assert!(!own.join("baetyl-core").exists());
}

#[test]
fn a_group_we_share_is_left_alone() {
    let tree = tempfile::tempdir().unwrap();
    let own = tree.path().join("session.scope");
    fs::create_dir(&own).unwrap();
    fs::write(own.join("cgroup.controllers"), "cpu memory").unwrap();
    fs::write(own.join("cgroup.procs"), "1\n77\n").unwrap();
    fs::write(tree.path().join("cgroup.controllers"), "cpu memory").unwrap();
    let machine = Machine {
        unified: Some((tree.path().to_owned(), own.clone())),
        ..Machine::default()
    };
    assert_eq!(
        Cgroups::on(&machine, "tag", 77),
        Cgroups::V2(tree.path().join("tag"))
    );
    assert!(!own.join("baetyl-core").exists());
}

#[test]
fn limits_are_written_in_the_words_of_each_version() {
    let tree = tempfile::tempdir().unwrap();
    let limits = Limits {
        memory: Some(1 << 20),
        cpu_millis: Some(250),
    };
    let read = |path: PathBuf| fs::read_to_string(path).unwrap();

    let group = Cgroups::V2(tree.path().join("two")).make(&id(), &limits);
    let dir = tree.path().join("two/baetyl-edge.app.1.main.1");
    assert_eq!(
        group,
        Group {
            enter: vec![dir.join("cgroup.procs")],
            missing: String::new()
        }
    );
    assert_eq!(
        (read(dir.join("memory.max")), read(dir.join("cpu.max"))),
        ("1048576".into(), "25000 100000".into())
    );

    let (memory, cpu) = (tree.path().join("m"), tree.path().join("c"));
    let group = Cgroups::V1 {
        memory: Some(memory.clone()),
        cpu: Some(cpu.clone()),
    }
    .make(&id(), &limits);
    assert_eq!((group.enter.len(), group.missing.as_str()), (2, ""));
    assert_eq!(
        read(memory.join(id().to_string()).join("memory.limit_in_bytes")),
        "1048576"
    );
    assert_eq!(
        read(cpu.join(id().to_string()).join("cpu.cfs_quota_us")),
        "25000"
    );
}

#[test]
fn what_is_not_enforced_is_told() {
    let limits = Limits {
        memory: Some(1),
        cpu_millis: Some(1),
    };
    assert_eq!(
        Cgroups::Absent("why".to_owned())
            .make(&id(), &limits)
            .missing,
        "why"
    );
    let tree = tempfile::tempdir().unwrap();
    let half = Cgroups::V1 {
        memory: None,
        cpu: Some(tree.path().to_owned()),
    };
    assert_eq!(
        half.make(&id(), &limits).missing,
        "there is no memory cgroup"
    );
    assert_eq!(
        half.make(
            &id(),
            &Limits {
                memory: None,
                ..limits
            }
        )
        .missing,
        ""
    );
}

#[test]
fn kills_for_want_of_memory_are_counted_in_both_versions() {
    let tree = tempfile::tempdir().unwrap();
    let (one, two) = (tree.path().join("one"), tree.path().join("two"));
    for dir in [&one, &two] {
        fs::create_dir(dir).unwrap();
    }
    fs::write(
        one.join("memory.oom_control"),
        "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    )
    .unwrap();
    fs::write(
        two.join("memory.events"),
        "low 0\noom 5\noom_kill 1\noom_group_kill 9\n",
    )
    .unwrap();
    assert_eq!(
        oom_kills(&[
            one.join("cgroup.procs"),
            two.join("cgroup.procs"),
            "/nowhere/cgroup.procs".into()
        ]),
        3
    );
}
