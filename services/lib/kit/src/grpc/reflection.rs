//! Server reflection, v1 and v1alpha, built when somebody asks for the first time.
//!
//! The decoded descriptors are larger than everything else an idle service holds; on a node nobody looks at
//! with grpcurl they are never built.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::any;
use http::Request;
use tonic::Status;
use tonic::service::Routes;
use tower::ServiceExt as _;

/// Adds both versions for an encoded `FileDescriptorSet`; only `services` are listed, so that a list is what can be called.
pub(super) fn add(
    router: Router,
    descriptors: &'static [u8],
    services: Vec<&'static str>,
) -> Router {
    let built: Arc<OnceLock<Option<Router>>> = Arc::default();
    let services: Arc<[&'static str]> = services.into();
    let handler = move |request: Request<Body>| {
        let (built, services) = (Arc::clone(&built), Arc::clone(&services));
        async move {
            match built.get_or_init(|| build(descriptors, &services)) {
                Some(router) => match router.clone().oneshot(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                },
                None => unavailable(),
            }
        }
    };
    router
        .route(
            "/grpc.reflection.v1.ServerReflection/{*method}",
            any(handler.clone()),
        )
        .route(
            "/grpc.reflection.v1alpha.ServerReflection/{*method}",
            any(handler),
        )
}

fn build(descriptors: &'static [u8], services: &[&'static str]) -> Option<Router> {
    let builder = || {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(descriptors)
            .with_service_name("grpc.health.v1.Health");
        services
            .iter()
            .fold(builder, |builder, name| builder.with_service_name(*name))
    };
    match (builder().build_v1(), builder().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => Some(Routes::new(v1).add_service(v1alpha).into_axum_router()),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "the descriptors given for reflection cannot be decoded");
            None
        }
    }
}

fn unavailable() -> Response {
    Status::unimplemented("this server has no usable descriptors for reflection").into_http()
}
