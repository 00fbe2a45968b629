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

/// Adds both versions for an encoded `FileDescriptorSet`.
pub(super) fn add(router: Router, descriptors: &'static [u8]) -> Router {
    let built: Arc<OnceLock<Option<Router>>> = Arc::default();
    let handler = move |request: Request<Body>| {
        let built = Arc::clone(&built);
        async move {
            match built.get_or_init(|| build(descriptors)) {
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

fn build(descriptors: &'static [u8]) -> Option<Router> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(descriptors)
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
