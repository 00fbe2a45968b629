use serde_json::json;

use crate::seen::Machine;

#[test]
fn a_machine_is_told_of_in_the_words_of_the_report() {
    let machine: Machine = serde_json::from_value(json!({
        "metadata": {"name": "edge1", "labels": {"node-role.kubernetes.io/control-plane": "", "zone": "a"}},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": "10.250.0.1"},
                {"type": "InternalIP", "address": "fd00::1"},
                {"type": "Hostname", "address": "edge1.local"},
            ],
            "nodeInfo": {
                "architecture": "arm64", "bootID": "b", "containerRuntimeVersion": "containerd://1.6.20",
                "kernelVersion": "6.1", "machineID": "m", "operatingSystem": "linux", "osImage": "Debian", "systemUUID": "u",
                "kubeletVersion": "v1.34.4", "kubeProxyVersion": "",
            },
        },
    }))
    .unwrap();
    let info = super::info(&machine);
    assert_eq!(info.hostname, "edge1.local");
    assert_eq!(info.address, "10.250.0.1,fd00::1");
    assert_eq!((info.arch.as_str(), info.os.as_str()), ("arm64", "linux"));
    assert_eq!(info.container_runtime, "containerd://1.6.20");
    assert_eq!(
        (
            info.machine_id.as_str(),
            info.boot_id.as_str(),
            info.system_uuid.as_str()
        ),
        ("m", "b", "u")
    );
    assert_eq!(info.role, "master");
    assert_eq!(info.labels["zone"], "a");
    let worker: Machine = serde_json::from_value(json!({"metadata": {"name": "edge2"}})).unwrap();
    let info = super::info(&worker);
    assert_eq!(
        (info.role.as_str(), info.hostname.as_str()),
        ("worker", "edge2")
    );
}
