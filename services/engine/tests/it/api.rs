//! `EngineService` over its socket.

use baetyl_proto::engine::{
    DescribeRequest, EnsureRunningRequest, GetAppRequest, ListAppsRequest, RestartAppRequest,
    WatchEndpointsRequest, WatchLogsRequest,
};
use baetyl_testkit::eventually;
use serde_json::json;
use tonic::Code;

use crate::node::{App, Node};

const SERVE: &str = "echo hello from $BAETYL_APP_NAME\nexec sleep 600";

async fn with_apps(names: &[&str]) -> Node {
    let node = Node::started().await;
    let apps: Vec<App> = names
        .iter()
        .map(|name| App::script(name, "1", SERVE, json!({})))
        .collect();
    node.desire(1, &apps.iter().collect::<Vec<_>>());
    for name in names {
        node.until(name, "Healthy 1").await;
    }
    node
}

#[tokio::test]
async fn applications_are_listed_in_pages_and_found_by_name() {
    let node = with_apps(&["app-a", "app-b", "app-c"]).await;
    let mut api = node.api();
    let mut names = Vec::new();
    let mut request = ListAppsRequest {
        page_size: 2,
        page_token: String::new(),
    };
    loop {
        let page = api.list_apps(request.clone()).await.unwrap().into_inner();
        assert!(page.apps.len() <= 2);
        names.extend(page.apps.into_iter().map(|app| app.name));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(names, ["app-a", "app-b", "app-c"]);
    let app = api
        .get_app(GetAppRequest {
            name: "app-b".to_owned(),
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (
            app.last_good_version.as_str(),
            app.candidate_version.as_str()
        ),
        ("1", "")
    );
    assert_eq!(app.app.unwrap().instances.len(), 1);
    let missing = api
        .get_app(GetAppRequest {
            name: "nobody".to_owned(),
        })
        .await
        .unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
}

#[tokio::test]
async fn a_restart_makes_new_processes_of_the_same_version() {
    let node = with_apps(&["shop"]).await;
    let before = node.pid("shop");
    let name = "shop".to_owned();
    node.api()
        .restart_app(RestartAppRequest { name: name.clone() })
        .await
        .unwrap();
    eventually!(node.pid("shop") != before && node.pid("shop") != 0);
    assert_eq!(node.status("shop").unwrap().version, "1");
    node.api()
        .ensure_running(EnsureRunningRequest { name })
        .await
        .unwrap();
    let missing = node
        .api()
        .restart_app(RestartAppRequest {
            name: "nobody".to_owned(),
        })
        .await
        .unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
}

#[tokio::test]
async fn logs_are_read_from_their_end_and_followed() {
    let node = Node::started().await;
    let script = "for i in 1 2 3; do echo line $i; done\nwhile [ ! -e go ]; do sleep 0.05; done\necho line 4\nexec sleep 600";
    node.desire(1, &[&App::script("shop", "1", script, json!({}))]);
    node.until("shop", "Healthy 1").await;
    let request = WatchLogsRequest {
        app: "shop".to_owned(),
        instance: String::new(),
        tail_lines: 2,
        follow: true,
        resume_token: String::new(),
    };
    let mut logs = node
        .api()
        .watch_logs(request.clone())
        .await
        .unwrap()
        .into_inner();
    let mut text = String::new();
    let mut token = String::new();
    while !text.contains("line 3\n") {
        let piece = logs.message().await.unwrap().unwrap();
        assert_eq!(piece.instance, "baetyl-edge.shop.1.web.1");
        token = piece.resume_token;
        text.push_str(&String::from_utf8_lossy(&piece.data));
    }
    assert_eq!(text, "line 2\nline 3\n");
    std::fs::write(node.instance("shop", "1").join("go"), "").unwrap();
    let next = logs.message().await.unwrap().unwrap();
    assert_eq!(&next.data[..], b"line 4\n");
    let again = |resume_token: &str| WatchLogsRequest {
        resume_token: resume_token.to_owned(),
        ..request.clone()
    };
    let resumed = node.api().watch_logs(again(&token)).await;
    let next = resumed.unwrap().into_inner().message().await.unwrap();
    assert_eq!(&next.unwrap().data[..], b"line 4\n");
    let strange = node.api().watch_logs(again("of-another-start")).await;
    assert_eq!(strange.err().unwrap().code(), Code::OutOfRange);
    let unknown = WatchLogsRequest {
        instance: "nobody".to_owned(),
        ..request
    };
    let refused = node.api().watch_logs(unknown).await.err().unwrap();
    assert_eq!(refused.code(), Code::NotFound);
}

/// A node that runs Python functions with a program that does nothing.
async fn with_runtime() -> Node {
    let mut node = Node::new().await;
    let runtime = node.dir.write("runtime.sh", "exec sleep 600\n");
    let command = vec!["/bin/sh".to_owned(), runtime.display().to_string()];
    let runtime = baetyl_engine::FunctionRuntime {
        command,
        image: None,
    };
    node.config.runtimes.insert("python3".to_owned(), runtime);
    node.start().await;
    node
}

/// Two functions anybody may call.
fn greet() -> App {
    let service = json!({"name": "fn1", "functionConfig": {"name": "code", "runtime": "python3"},
        "functions": [{"name": "hello", "handler": "index.hello"}, {"name": "bye", "handler": "index.bye"}]});
    let labels = json!({"baetyl-function-access": "anonymous"});
    let body = json!({"type": "function", "labels": labels, "services": [service]});
    App::new("greet", "1", body).configuration("code", "1", json!({"index.py": ""}))
}

#[tokio::test]
async fn endpoints_tell_where_services_and_functions_run_and_who_may_call() {
    let node = with_runtime().await;
    let watch = node
        .api_as("proxy")
        .watch_endpoints(WatchEndpointsRequest::default())
        .await;
    let mut watch = watch.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().endpoints.len(), 0);
    let shop = App::script(
        "shop",
        "1",
        SERVE,
        json!({"ports": [{"containerPort": 80}]}),
    );
    node.desire(1, &[&greet(), &shop]);
    let table = loop {
        let answer = watch.message().await.unwrap().unwrap();
        if answer.endpoints.len() == 2 && answer.endpoints.iter().all(|endpoint| endpoint.ready) {
            break answer;
        }
    };
    assert_eq!(table.app_key, *node.peers.key.lock().unwrap());
    eventually!(table.app_key == *node.peers.ticket_key.lock().unwrap());
    let strange = WatchEndpointsRequest {
        resume_token: "of-another-start".to_owned(),
    };
    let refused = node.api_as("proxy").watch_endpoints(strange).await;
    assert_eq!(refused.err().unwrap().code(), Code::OutOfRange);
    let [greet, shop] = &table.endpoints[..] else {
        panic!("{table:?}")
    };
    let told = (
        greet.app.as_str(),
        greet.access.as_str(),
        greet.address.as_str(),
    );
    assert_eq!(told, ("greet", "anonymous", ""));
    let functions: Vec<_> = greet
        .functions
        .iter()
        .map(|function| function.name.as_str())
        .collect();
    assert_eq!(functions, ["hello", "bye"]);
    assert_eq!(
        (shop.port_name.as_str(), shop.access.as_str()),
        ("80", "token")
    );
    let port: u16 = shop
        .address
        .strip_prefix("127.0.0.1:")
        .unwrap()
        .parse()
        .unwrap();
    let native = &node.config.native;
    assert!((native.port_min..=native.port_max).contains(&port));
}

#[tokio::test]
async fn an_application_is_described_for_people_without_its_secrets() {
    let node = Node::started().await;
    let app = App::script(
        "shop",
        "1",
        SERVE,
        json!({"env": [{"name": "PASSWORD", "value": "hunter2"}]}),
    );
    node.desire(4, &[&app]);
    node.until("shop", "Healthy 1").await;
    let text = node
        .api()
        .describe(DescribeRequest {
            name: "shop".to_owned(),
        })
        .await
        .unwrap()
        .into_inner()
        .text;
    for line in [
        "Name:        shop",
        "Phase:       Healthy",
        "Running:     1",
        "generation 4",
        "baetyl-edge.shop.1.web.1: Running, ready",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("hunter2"));
}

#[tokio::test]
async fn only_the_roles_of_the_table_may_call() {
    let node = Node::started().await;
    let refused = node
        .api_as("app")
        .list_apps(ListAppsRequest::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let refused = node
        .api_as("proxy")
        .restart_app(RestartAppRequest {
            name: "shop".to_owned(),
        })
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}
