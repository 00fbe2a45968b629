//! Who may call and who may register.

use baetyl_proto::function::register_request::Message as Up;
use baetyl_proto::function::{Heartbeat, InvokeRequest, ListFunctionsRequest, Registration};
use tonic::Code;

use super::*;

fn invoke(service: &str) -> InvokeRequest {
    InvokeRequest {
        service: service.to_owned(),
        ..InvokeRequest::default()
    }
}

/// Three applications, each with a runtime that echoes.
async fn world() -> (World, impl Sized) {
    let world = World::new(
        &[
            ("open", "anonymous"),
            ("shop", "token"),
            ("later", "mutual"),
        ],
        |_| (),
    )
    .await;
    let echoes = (
        world.runtime("open", 1).await.echo(),
        world.runtime("shop", 1).await.echo(),
        world.runtime("later", 1).await.echo(),
    );
    (world, echoes)
}

#[tokio::test]
async fn over_http_a_token_is_wanted_unless_the_function_is_anonymous() {
    let (world, _echoes) = world().await;
    let good = format!("Bearer {}", world.token("any"));
    let foreign = format!(
        "Bearer {}",
        token(&SigningKey::generate().unwrap(), "any", "any", "any.1")
    );
    let cases = [
        ("/open", None, 200, ""),
        ("/open", Some(good.as_str()), 200, ""),
        ("/open", Some(&foreign), 401, "ERR_UNAUTHENTICATED"),
        ("/shop", None, 401, "ERR_UNAUTHENTICATED"),
        ("/shop", Some(&good), 200, ""),
        ("/shop", Some(&foreign), 401, "ERR_UNAUTHENTICATED"),
        ("/shop", Some("Basic YTpi"), 401, "ERR_UNAUTHENTICATED"),
        ("/shop", Some("Bearer "), 401, "ERR_UNAUTHENTICATED"),
        ("/later", None, 403, "ERR_PERMISSION_DENIED"),
        ("/later", Some(&good), 403, "ERR_PERMISSION_DENIED"),
    ];
    for (path, authorization, status, code) in cases {
        let headers: Vec<_> = authorization
            .map(|value| ("authorization", value))
            .into_iter()
            .collect();
        let answer = world.send(Method::POST, path, &headers, "hi").await;
        assert_eq!(answer.status(), status, "{path} {authorization:?}");
        if status != 200 {
            assert_eq!(answer.error().1, code, "{path} {authorization:?}");
        }
    }
}

#[tokio::test]
async fn over_grpc_the_same_holds() {
    let (world, _echoes) = world().await;
    let foreign = token(&SigningKey::generate().unwrap(), "any", "any", "any.1");
    let cases = [
        ("open", None, Code::Ok),
        ("open", Some(foreign.clone()), Code::Unauthenticated),
        ("shop", None, Code::Unauthenticated),
        ("shop", Some(world.token("any")), Code::Ok),
        ("shop", Some(foreign), Code::Unauthenticated),
        ("later", Some(world.token("any")), Code::PermissionDenied),
    ];
    for (service, token, expected) in cases {
        let (mut own, mut v2) = world.grpc(token.as_deref());
        let code = own
            .invoke(invoke(service))
            .await
            .map_or_else(|status| status.code(), |_| Code::Ok);
        assert_eq!(code, expected, "{service} {token:?}");
        let message = baetyl_proto::faas::Message {
            metadata: pairs(&[("serviceName", service)]),
            ..Default::default()
        };
        let code = v2
            .call(message)
            .await
            .map_or_else(|status| status.code(), |_| Code::Ok);
        assert_eq!(code, expected, "{service} {token:?}");
    }
    let (mut own, _) = world.grpc(None);
    let listed = own.list_functions(ListFunctionsRequest::default()).await;
    assert_eq!(listed.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn on_the_core_socket_sync_and_the_administrator_need_no_token() {
    let (world, _echoes) = world().await;
    for (role, expected) in [
        ("sync", Code::Ok),
        ("admin", Code::Ok),
        ("engine", Code::PermissionDenied),
    ] {
        let (mut client, _) = world.core(role);
        let code = client
            .invoke(invoke("shop"))
            .await
            .map_or_else(|status| status.code(), |_| Code::Ok);
        assert_eq!(code, expected, "{role}");
    }
}

#[tokio::test]
async fn without_engine_nobody_can_be_trusted_and_nothing_is_known() {
    let world = World::silent(|_| ()).await;
    let bearer = format!("Bearer {}", world.token("any"));
    for headers in [vec![], vec![("authorization", bearer.as_str())]] {
        let (status, code, message) = world
            .send(Method::POST, "/shop", &headers, "")
            .await
            .error();
        assert_eq!((status, code.as_str()), (503, "ERR_ENGINE_UNAVAILABLE"));
        assert!(message.contains("engine"), "{message}");
    }
    assert!(!world.kit.readiness().is_ready());
    let refused = Runtime::register(&world, "shop", "shop.1", &["f"], 1)
        .await
        .err()
        .unwrap();
    assert_eq!(refused.code(), Code::Unavailable);
}

#[tokio::test]
async fn when_engine_goes_what_it_told_stays_true() {
    let (world, _echoes) = world().await;
    world.engine.kit.stop(PATIENCE).await.unwrap();
    let bearer = format!("Bearer {}", world.token("any"));
    assert_eq!(
        world
            .send(Method::POST, "/shop", &[("authorization", &bearer)], "")
            .await
            .status(),
        200
    );
}

#[tokio::test]
async fn a_new_key_makes_old_tokens_worthless() {
    let (mut world, _echoes) = world().await;
    let old = format!("Bearer {}", world.token("any"));
    assert_eq!(
        world
            .send(Method::POST, "/shop", &[("authorization", &old)], "")
            .await
            .status(),
        200
    );
    world.key = SigningKey::generate().unwrap();
    world.tell(vec![endpoint("shop", &["f"], "token")]);
    eventually!(
        world
            .send(Method::POST, "/shop", &[("authorization", &old)], "")
            .await
            .status()
            == 401
    );
    let new = format!("Bearer {}", world.token("any"));
    assert_eq!(
        world
            .send(Method::POST, "/shop", &[("authorization", &new)], "")
            .await
            .status(),
        200
    );
}

#[tokio::test]
async fn a_runtime_registers_only_as_what_its_token_says() {
    let (world, _echoes) = world().await;
    let registration = |change: fn(&mut Registration)| {
        let mut registration = runtime::registration("shop", "shop.9", &["f"], 1);
        change(&mut registration);
        Up::Registration(registration)
    };
    let own = token(&world.key, "shop", "shop", "shop.9");
    let foreign = token(&SigningKey::generate().unwrap(), "shop", "shop", "shop.9");
    let cases = [
        (None, registration(|_| ()), Code::Unauthenticated),
        (Some(&foreign), registration(|_| ()), Code::Unauthenticated),
        (
            Some(&own),
            registration(|r| r.app = "open".to_owned()),
            Code::PermissionDenied,
        ),
        (
            Some(&own),
            registration(|r| r.service = "open".to_owned()),
            Code::PermissionDenied,
        ),
        (
            Some(&own),
            registration(|r| r.instance = "shop.1".to_owned()),
            Code::PermissionDenied,
        ),
        (
            Some(&own),
            registration(|r| r.protocol_min = 2),
            Code::FailedPrecondition,
        ),
        (
            Some(&own),
            registration(|r| r.concurrency = 0),
            Code::InvalidArgument,
        ),
        (
            Some(&own),
            registration(|r| r.concurrency = 100_000),
            Code::InvalidArgument,
        ),
        (
            Some(&own),
            registration(|r| r.functions.clear()),
            Code::InvalidArgument,
        ),
        (
            Some(&own),
            registration(|r| r.functions.push(r.functions[0].clone())),
            Code::InvalidArgument,
        ),
        (
            Some(&own),
            registration(|r| r.functions[0].name.clear()),
            Code::InvalidArgument,
        ),
        (
            Some(&own),
            Up::Heartbeat(Heartbeat {}),
            Code::InvalidArgument,
        ),
    ];
    for (token, first, expected) in cases {
        let shown = format!("{first:?}");
        let refused = Runtime::connect(&world, token.map(String::as_str), first)
            .await
            .err();
        assert_eq!(
            refused.map(|status| status.code()),
            Some(expected),
            "{shown}"
        );
    }
    assert!(
        Runtime::connect(&world, Some(&own), registration(|_| ()))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn outside_a_claimed_role_counts_for_nothing_and_a_token_opens_the_rows_of_applications() {
    use baetyl_kit::listen::{Peer, PeerAddr};
    use baetyl_proto::callers::{Role, TABLE};
    let dir = TestDir::new();
    let kit = Kit::for_test(dir.path());
    let engine = Endpoint::unix(kit.core_socket("engine"));
    let engine = baetyl_proto::engine::engine_service_client::EngineServiceClient::new(
        connect_lazy(&engine, "proxy").unwrap(),
    );
    let proxy = std::sync::Arc::new(crate::make(&Config::default(), &kit, engine));
    let key = SigningKey::generate().unwrap();
    proxy
        .known
        .set(baetyl_proto::engine::WatchEndpointsResponse {
            app_key: key.public_key().to_vec().into(),
            ..Default::default()
        });
    let authorize = crate::auth::outside(proxy);
    let bearer = format!("Bearer {}", token(&key, "any", "any", "any.1"));
    let peer = Peer::new(PeerAddr::Tcp(([127, 0, 0, 1], 1).into()));
    // What is called decides about these.
    let anonymous = ["Function/Call", "/Invoke", "/InvokeStream"];
    for (path, roles) in TABLE {
        for role in Role::ALL {
            let mut headers = http::HeaderMap::new();
            headers.insert(baetyl_kit::grpc::ROLE, role.as_str().parse().unwrap());
            let apps = roles.contains(&Role::App);
            let open = anonymous.iter().any(|end| path.ends_with(end));
            let without = authorize(&peer, path, &headers);
            assert_eq!(without.is_ok(), apps && open, "{role} {path}");
            headers.insert("authorization", bearer.parse().unwrap());
            let with = authorize(&peer, path, &headers);
            assert_eq!(with.is_ok(), apps, "{role} {path}");
            assert!(with.is_ok_and(|caller| caller.role == "app") || !apps);
        }
    }
}

#[tokio::test]
async fn features_that_the_proxy_does_not_know_are_not_in_use() {
    let (world, _echoes) = world().await;
    let mut registration = runtime::registration("shop", "shop.9", &["f"], 1);
    registration.features = vec!["of-a-later-release".to_owned()];
    let own = token(&world.key, "shop", "shop", "shop.9");
    let runtime = Runtime::connect(&world, Some(&own), Up::Registration(registration)).await;
    let registered = runtime.unwrap().registered;
    assert_eq!((registered.protocol, registered.features), (1, Vec::new()));
}
