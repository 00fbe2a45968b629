//! Each kind of workload, as Kubernetes and as the report have it.

use anyhow::{Context as _, Result, ensure};
use baetyl_tests::wait::until_within;
use serde_json::{Value, json};

use crate::node::{IDLE, Node, PATIENCE, busybox, web};

#[tokio::test]
async fn a_deployment_with_two_instances_is_called_and_scaled() -> Result<()> {
    let node = Node::shared().await?;
    let mut app = web(&node, "pair", "pair");
    app["replica"] = json!(2);
    let mut app = node.run(&app).await?;
    let told = node.app("pair").await?;
    ensure!(told["deployType"] == "deployment", "{told}");
    ensure!(
        told["instances"]
            .as_object()
            .is_some_and(|all| all.len() == 2),
        "{told}"
    );
    node.until_page("pair", "pair").await?;
    let before = node.lives("pair").await?;
    app["replica"] = json!(3);
    let app = node.change(&app).await?;
    node.until_running(&app).await?;
    let after = node.lives("pair").await?;
    ensure!(after.len() == 3 && !before.is_empty(), "{after:?}");
    node.delete("pair").await
}

#[tokio::test]
async fn a_stateful_set_has_names_that_stay_and_a_headless_service() -> Result<()> {
    let node = Node::shared().await?;
    let mut app = web(&node, "ordered", "ordered");
    app["workload"] = json!("statefulset");
    app["replica"] = json!(2);
    // They are replaced one after the other.
    app["labels"]["baetyl-progress-deadline"] = json!("60s");
    let app = node.run(&app).await?;
    let names: Vec<String> = node.lives("ordered").await?.into_keys().collect();
    ensure!(names == ["ordered-0", "ordered-1"], "{names:?}");
    let service: Value = node.users().get("service", "ordered").await?;
    ensure!(service["spec"]["clusterIP"] == "None", "{service}");
    let mut next = app;
    crate::node::set_env(&mut next, "ROUND", "2");
    let next = node.change(&next).await?;
    node.until_running(&next).await?;
    node.delete("ordered").await
}

#[tokio::test]
async fn a_daemon_set_has_one_instance_on_each_machine() -> Result<()> {
    let node = Node::shared().await?;
    let mut app = web(&node, "everywhere", "here");
    app["workload"] = json!("daemonset");
    node.run(&app).await?;
    let machines: Vec<Value> = node.cluster.objects().list("nodes", "").await?;
    ensure!(node.lives("everywhere").await?.len() == machines.len());
    node.until_page("everywhere", "here").await?;
    node.delete("everywhere").await
}

#[tokio::test]
async fn a_job_ends_and_stays_ended() -> Result<()> {
    let node = Node::shared().await?;
    let mut app = busybox(&node, "once", "echo done");
    app["workload"] = json!("job");
    app["jobConfig"] =
        json!({"completions": 2, "parallelism": 1, "backoffLimit": 0, "restartPolicy": "Never"});
    node.create(&app).await?;
    let ended = |told: &Value| told["status"] == "Succeeded" && told["phase"] == "Healthy";
    node.until_app("once", "succeeds", ended).await?;
    let pods = node.pods("once").await?;
    ensure!(pods.len() == 2, "{} Pods", pods.len());
    node.delete("once").await
}

#[tokio::test]
async fn a_job_that_fails_is_a_failure() -> Result<()> {
    let node = Node::shared().await?;
    let mut app = busybox(&node, "never", "exit 4");
    app["workload"] = json!("job");
    app["jobConfig"] = json!({"completions": 1, "backoffLimit": 0, "restartPolicy": "Never"});
    let app = node.create(&app).await?;
    node.until_failed(&app, "exit code 4").await?;
    node.delete("never").await
}

#[tokio::test]
async fn a_scheduled_job_runs_when_its_time_has_come() -> Result<()> {
    let node = Node::shared().await?;
    let mut app = busybox(&node, "hourly", "echo ran");
    app["workload"] = json!("job");
    app["jobConfig"] = json!({"schedule": "@yearly", "restartPolicy": "Never"});
    node.run(&app).await?;
    let cron: Value = node.users().get("cronjob", "hourly").await?;
    ensure!(cron["spec"]["schedule"] == "@yearly", "{cron}");
    // Its controller makes runs like this one.
    let kubectl = node.cluster.kubectl();
    let run = [
        "-n",
        crate::node::USERS,
        "create",
        "job",
        "hourly-now",
        "--from=cronjob/hourly",
    ];
    kubectl.run(&run).await?;
    node.users()
        .wait_until("job", "hourly-now", "ends", |job| {
            job["status"]["succeeded"] == 1
        })
        .await?;
    let told = node.app("hourly").await?;
    ensure!(told["phase"] == "Healthy", "{told}");
    node.delete("hourly").await
}

#[tokio::test]
async fn init_services_come_first_and_services_of_one_application_share_a_pod() -> Result<()> {
    let node = Node::shared().await?;
    let mut app = web(&node, "prepared", "unused");
    let image = node.cluster.busybox();
    app["initServices"] = json!([{
        "name": "prepare", "image": image, "command": ["/bin/sh", "-c"],
        "args": ["echo from the init service >/shared/index.html"],
        "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
    }]);
    app["services"][0]["args"] = json!([format!("busybox httpd -p 8080 -h /shared; {IDLE}")]);
    app["services"][0]["volumeMounts"] = json!([{"name": "shared", "mountPath": "/shared"}]);
    let beside = json!({
        "name": "beside", "image": image, "command": ["/bin/sh", "-c"],
        "args": [IDLE],
    });
    app["services"]
        .as_array_mut()
        .context("services")?
        .push(beside);
    app["volumes"] = json!([{"name": "shared", "emptyDir": {}}]);
    node.run(&app).await?;
    node.until_page("prepared", "from the init service").await?;
    let told = node.app("prepared").await?;
    let instances = told["instances"].as_object().context("instances")?;
    let instance = instances.values().next().context("an instance")?;
    let containers = instance["containers"].as_array().context("containers")?;
    ensure!(containers.len() == 2 && instances.len() == 1, "{told}");
    node.delete("prepared").await
}

#[tokio::test]
async fn ports_of_machines_and_of_the_cluster_answer() -> Result<()> {
    let node = Node::shared().await?;
    let machines: Vec<Value> = node.cluster.objects().list("nodes", "").await?;
    let addresses = machines[0]["status"]["addresses"].as_array();
    let internal = addresses.into_iter().flatten();
    let internal = internal.filter(|address| address["type"] == "InternalIP");
    let machine = internal
        .filter_map(|address| address["address"].as_str())
        .next();
    let machine = machine.context("the machine has no address")?;
    let answers = |port: u16| async move {
        let server = format!("http://{machine}:{port}");
        until_within(PATIENCE, &format!("{server} answers"), || async {
            let page = crate::node::page_at(&server, "/").await?;
            ensure!(page.trim() == "ported", "{page}");
            Ok(())
        })
        .await
    };
    for (name, port, more) in [
        ("host-port", 18_081, json!({"hostPort": 18_081})),
        (
            "node-port",
            30_081,
            json!({"serviceType": "NodePort", "nodePort": 30_081}),
        ),
    ] {
        let mut app = web(&node, name, "ported");
        let ports = app["services"][0]["ports"][0]
            .as_object_mut()
            .context("a port")?;
        ports.extend(more.as_object().context("fields")?.clone());
        node.run(&app).await?;
        answers(port).await?;
        node.delete(name).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_autoscaler_is_made_and_is_not_fought() -> Result<()> {
    let node = Node::shared().await?;
    let mut app = web(&node, "scaled", "scaled");
    app["services"][0]["resources"] = json!({"requests": {"cpu": "10m"}});
    app["autoScaleCfg"] = json!({
        "minReplicas": 2, "maxReplicas": 3,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "targetType": "Utilization", "averageUtilization": 80}}],
    });
    node.create(&app).await?;
    let two = |told: &Value| {
        let instances = told["instances"].as_object();
        told["phase"] == "Healthy" && instances.is_some_and(|all| all.len() == 2)
    };
    node.until_app("scaled", "has two instances", two).await?;
    let scaler: Value = node
        .users()
        .get("horizontalpodautoscaler", "scaled")
        .await?;
    ensure!(scaler["spec"]["minReplicas"] == 2, "{scaler}");
    node.delete("scaled").await
}

#[tokio::test]
async fn what_others_changed_is_fought_or_preserved_as_the_application_says() -> Result<()> {
    let node = Node::shared().await?;
    let scale = |name: &'static str| {
        let node = &node;
        async move { node.users().scale("deployment", name, 3).await }
    };
    let mut app = web(&node, "preserved", "preserved");
    app["preserveUpdates"] = json!(true);
    let mut app = node.run(&app).await?;
    scale("preserved").await?;
    crate::node::set_env(&mut app, "ROUND", "2");
    let mut app = node.change(&app).await?;
    node.until_running(&app).await?;
    let lives = node.lives("preserved").await?;
    ensure!(lives.len() == 3, "{lives:?}");
    // Now both want something else.
    app["replica"] = json!(2);
    let refused = node.change(&app).await?;
    node.until_failed(&refused, "replicas").await?;
    ensure!(node.lives("preserved").await? == lives);
    node.delete("preserved").await?;

    let mut app = node.run(&web(&node, "contested", "contested")).await?;
    scale("contested").await?;
    crate::node::set_env(&mut app, "ROUND", "2");
    let refused = node.change(&app).await?;
    node.until_failed(&refused, "replicas").await?;
    node.delete("contested").await
}
