//! The same over real connections: what the handshake lets in, and what the certificate opens then.

use baetyl_kit::tls::{self, Clients, Identity, ServiceIdentity};
use baetyl_kit::{grpc, listen::Listen};
use baetyl_testkit::{Leaf, PATIENCE, SecretMount, TestCa, TestDir, TestIdentity};
use http::uri::PathAndQuery;
use tonic::Request;
use tonic_prost::ProstCodec;

use super::certificates::{CORE, app_id};
use super::*;

/// A server without any service: what may be called is not implemented, all else is refused before that is known.
struct World {
    dir: TestDir,
    ca: TestCa,
    endpoint: Endpoint,
}

fn leaf(id: &CallerId) -> Leaf {
    Leaf::new("service").uri(&id.to_string()).name("127.0.0.1")
}

impl World {
    async fn new(authorize: Authorize, clients: Clients) -> Self {
        let (dir, ca) = (TestDir::new(), TestCa::new("node"));
        let kit = service(&dir, Role::Node, &ca);
        let bound = grpc::Server::new(&kit, "node")
            .authorize(authorize)
            .in_node(clients)
            .serve(&Listen::loopback())
            .await
            .unwrap();
        let endpoint = format!("https://{bound}").parse().unwrap();
        Self { dir, ca, endpoint }
    }

    /// The way of a service to this server, as all services make it.
    fn client(&self, own: Role, to: Role) -> Client {
        let kit = service(&self.dir, own, &self.ca);
        connect(&kit, Some(&self.endpoint), to, own).unwrap()
    }

    /// A way with another certificate, or none.
    fn stranger(&self, identity: Option<Identity>, role: Option<&str>) -> Client {
        let tls = tls::client_config(&self.ca.trust(), identity, None).unwrap();
        let connect = grpc::Connect::new(self.endpoint.clone()).tls(tls);
        match role {
            Some(role) => connect.role(role).lazy().unwrap(),
            None => connect.lazy().unwrap(),
        }
    }

    fn issued(&self, id: &CallerId) -> Option<Identity> {
        Some(self.ca.issue(&leaf(id)).identity())
    }
}

fn service(dir: &TestDir, role: Role, ca: &TestCa) -> Kit {
    let mut mount = SecretMount::new(dir.join(format!("tls-{role}")));
    mount.identity(&ca.issue(&leaf(&CallerId::Core(role))), &[ca]);
    let kit = Kit::new(role.as_str(), dir.join(role.as_str()), Default::default());
    let identity = ServiceIdentity::mounted(&kit, mount.path());
    kit.with_identity(identity)
}

/// What a call of the method ends with.
async fn call(client: &Client, path: &'static str) -> Code {
    let calling = async {
        let mut grpc = tonic::client::Grpc::new(client.clone());
        if grpc.ready().await.is_err() {
            return HUNG_UP;
        }
        let codec = ProstCodec::<(), ()>::default();
        let path = PathAndQuery::from_static(path);
        match grpc.unary(Request::new(()), path, codec).await {
            Ok(_) => Code::Ok,
            // In TLS 1.3 a client learns only from the first answer that it was not let in.
            Err(status) if status.code() == Code::Unknown => HUNG_UP,
            Err(status) => status.code(),
        }
    };
    tokio::time::timeout(PATIENCE, calling)
        .await
        .expect("no answer came")
}

/// Let in, and then told that nothing is here.
const ALLOWED: Code = Code::Unimplemented;
/// The handshake failed.
const HUNG_UP: Code = Code::Unavailable;

#[tokio::test]
async fn every_role_gets_exactly_its_rows_over_tls() {
    let world = World::new(core(), Clients::Required).await;
    for role in CORE {
        let client = world.client(role, Role::Node);
        for (path, roles) in TABLE {
            let expected = if roles.contains(&role) {
                ALLOWED
            } else {
                Code::PermissionDenied
            };
            assert_eq!(call(&client, path).await, expected, "{role} {path}");
        }
    }
}

#[tokio::test]
async fn on_a_core_listener_nobody_gets_in_without_a_certificate_of_a_core_service() {
    let world = World::new(core(), Clients::Required).await;
    let path = "/baetyl.engine.v1.EngineService/ListApps";
    let sync = CallerId::Core(Role::Sync);
    let other = TestCa::new("other");
    let foreign = |id: &CallerId| Some(other.issue(&leaf(id)).identity());
    for (identity, role, expected) in [
        (world.issued(&sync), Some("sync"), ALLOWED),
        // As grpcurl calls: without a word about its role.
        (world.issued(&sync), None, ALLOWED),
        (world.issued(&sync), Some("engine"), Code::PermissionDenied),
        (world.issued(&app_id()), Some("sync"), Code::Unauthenticated),
        (
            Some(world.ca.issue(&Leaf::new("sync")).identity()),
            Some("sync"),
            Code::Unauthenticated,
        ),
        (foreign(&sync), Some("sync"), HUNG_UP),
        (None, Some("sync"), HUNG_UP),
    ] {
        let with = identity.is_some();
        let client = world.stranger(identity, role);
        assert_eq!(call(&client, path).await, expected, "{with} {role:?}");
    }
}

#[tokio::test]
async fn the_age_of_a_certificate_decides_nothing() {
    let world = World::new(core(), Clients::Required).await;
    let path = "/baetyl.engine.v1.EngineService/ListApps";
    for (from, to) in [
        ("2001-01-01T00:00:00Z", "2002-01-01T00:00:00Z"),
        ("2098-01-01T00:00:00Z", "2099-01-01T00:00:00Z"),
    ] {
        let leaf = leaf(&CallerId::Core(Role::Sync)).valid(from, to);
        let client = world.stranger(Some(world.ca.issue(&leaf).identity()), Some("sync"));
        assert_eq!(call(&client, path).await, ALLOWED, "{from}");
    }
}

#[tokio::test]
async fn a_server_with_the_certificate_of_another_service_is_not_called() {
    let world = World::new(core(), Clients::Required).await;
    let path = "/baetyl.node.v1.NodeService/GetShadow";
    let right = world.client(Role::Engine, Role::Node);
    assert_eq!(call(&right, path).await, ALLOWED);
    let wrong = world.client(Role::Engine, Role::Sync);
    assert_eq!(call(&wrong, path).await, HUNG_UP);
}

#[tokio::test]
async fn applications_come_with_a_certificate_or_a_token_and_with_nothing_else() {
    let key = SigningKey::generate().unwrap();
    let public = key.public_key().to_vec();
    let listener = apps(move || Some(public.clone()));
    let world = World::new(listener, Clients::Optional).await;
    let path = "/baetyl.node.v1.LocalService/GetProperties";
    let claims = token::Claims {
        app: "web".into(),
        service: "web".into(),
        instance: "i".into(),
        iat: 0,
    };
    let token = token::issue(&claims, |bytes| key.sign(bytes));
    let tls = tls::client_config(&world.ca.trust(), None, None).unwrap();
    let bearer = grpc::Connect::new(world.endpoint.clone()).tls(tls);
    let bearer = bearer.bearer(token).lazy().unwrap();
    assert_eq!(call(&bearer, path).await, ALLOWED);
    let other: TestIdentity = TestCa::new("other").issue(&leaf(&app_id()));
    let engine = CallerId::Core(Role::Engine);
    for (identity, expected) in [
        (world.issued(&app_id()), ALLOWED),
        (None, Code::Unauthenticated),
        (world.issued(&engine), Code::Unauthenticated),
        (Some(other.identity()), HUNG_UP),
    ] {
        let client = world.stranger(identity, None);
        assert_eq!(call(&client, path).await, expected);
    }
    let client = world.stranger(world.issued(&app_id()), None);
    let core = "/baetyl.node.v1.NodeService/PutReport";
    assert_eq!(call(&client, core).await, Code::PermissionDenied);
}
