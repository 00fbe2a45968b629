//! A node that is no node any more.

use std::fs;

use baetyl_runtime_native::config::SecretsDir;
use baetyl_runtime_native::spec::{Content, FileSpec, Mount, MountSource};
use baetyl_runtime_native::{InstanceSpec, WorkloadSpec, erase, remains};

use crate::node::{Node, is_alive, key, one, script, service};

fn with_secret(text: &str) -> InstanceSpec {
    let file = FileSpec {
        path: "key".to_owned(),
        content: Content::Bytes("hush".into()),
        mode: None,
    };
    let mount = Mount {
        name: "s".to_owned(),
        path: "/secret".to_owned(),
        sub_path: String::new(),
        source: MountSource::Secret(vec![file]),
    };
    InstanceSpec {
        mounts: vec![mount],
        ..script(text)
    }
}

#[tokio::test]
async fn everything_of_it_ends_and_goes_also_what_has_no_record_and_the_host_directory_stays() {
    let mut node = Node::with(|config| config.secrets = SecretsDir::Auto).await;
    node.runtime()
        .run(service(with_secret("echo up; exec sleep 600")))
        .unwrap();
    node.until_logged(&one(), "up\n").await;
    let before = node.until_running().await;
    let second = WorkloadSpec {
        key: key("other"),
        ..service(script("exec sleep 600"))
    };
    node.runtime().run(second).unwrap();
    let both = node
        .until("both run", |observed| {
            observed.instances.len() == 2 && observed.instances.values().all(|status| status.ready)
        })
        .await;
    node.lose().await;
    fs::remove_dir_all(node.config.state_dir.join("baetyl-edge/app")).unwrap();
    fs::create_dir_all(&node.config.host_dir).unwrap();
    fs::write(node.config.host_dir.join("data"), "precious").unwrap();

    let there = remains(&node.config).unwrap();
    assert_eq!(there.workloads, [key("app"), key("other")]);
    erase(node.config.clone()).await.unwrap();
    assert!(!is_alive(before.shim) && !is_alive(before.app));
    for status in both.instances.values() {
        assert!(!is_alive(status.process.as_ref().unwrap().app));
    }
    for dir in there.dirs {
        assert!(!dir.exists(), "{}", dir.display());
    }
    assert!(node.config.host_dir.join("data").exists());
    let nothing = remains(&node.config).unwrap();
    assert!(nothing.workloads.is_empty() && nothing.dirs.is_empty());
    erase(node.config.clone()).await.unwrap();
}
