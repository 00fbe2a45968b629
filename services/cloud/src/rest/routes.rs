//! Everything the interface can do: one table from which router, authorization and OpenAPI document are made.

use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, on};
use http::Method;
use serde::de::DeserializeOwned;

use super::{Rest, Success};
use crate::openapi::{self, Shape};
use crate::store::Role;

mod table;

pub(crate) use table::operations;

/// One method of one path.
pub(crate) struct Operation {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    /// The least role that may do it; none: anybody.
    pub(crate) role: Option<Role>,
    /// A sentence for people.
    pub(crate) summary: &'static str,
    /// What the body is.
    pub(crate) input: Input,
    /// What is answered.
    pub(crate) output: Output,
    /// Names of query parameters, besides those of lists.
    pub(crate) query: &'static [&'static str],
    /// What is said in headers about versions.
    pub(crate) versions: Versions,
    pub(crate) handler: MethodRouter<Rest>,
}

/// Which headers about versions an operation knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Versions {
    /// The answer has an `ETag`.
    pub(crate) tagged: bool,
    /// `If-Match`: otherwise 412.
    pub(crate) if_match: bool,
    /// `If-None-Match`: otherwise 304.
    pub(crate) if_none_match: bool,
}

/// The body of a request.
pub(crate) enum Input {
    None,
    Json(Shape),
    Bytes,
}

/// The body of an answer.
pub(crate) enum Output {
    Json(Shape),
    List(Shape),
    Html,
}

impl Operation {
    fn new<H, T>(
        method: Method,
        path: &'static str,
        role: Option<Role>,
        summary: &'static str,
        handler: H,
    ) -> Self
    where
        H: Handler<T, Rest>,
        T: 'static,
    {
        // GET answers HEAD too. The methods of the table are the usual ones.
        let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::GET);
        let handler = on(filter, handler);
        let output = Output::Json(openapi::shape::<Success>());
        Self {
            method,
            path,
            role,
            summary,
            input: Input::None,
            output,
            query: &[],
            versions: Versions::default(),
            handler,
        }
    }

    fn takes<T: DeserializeOwned>(self) -> Self {
        Self {
            input: Input::Json(openapi::shape::<T>()),
            ..self
        }
    }

    fn gives<T: DeserializeOwned>(self) -> Self {
        Self {
            output: Output::Json(openapi::shape::<T>()),
            ..self
        }
    }

    fn lists<T: DeserializeOwned>(self) -> Self {
        Self {
            output: Output::List(openapi::shape::<T>()),
            ..self
        }
    }

    /// The answer carries the version.
    fn tagged(mut self) -> Self {
        self.versions.tagged = true;
        self
    }

    /// A write only to the version that was read.
    fn if_match(mut self) -> Self {
        self.versions.if_match = true;
        self
    }

    fn query(self, query: &'static [&'static str]) -> Self {
        Self { query, ..self }
    }
}

fn get<H: Handler<T, Rest>, T: 'static>(
    path: &'static str,
    summary: &'static str,
    handler: H,
) -> Operation {
    Operation::new(Method::GET, path, Some(Role::Viewer), summary, handler)
}

fn post<H: Handler<T, Rest>, T: 'static>(
    path: &'static str,
    summary: &'static str,
    handler: H,
) -> Operation {
    Operation::new(Method::POST, path, Some(Role::Operator), summary, handler)
}

fn put<H: Handler<T, Rest>, T: 'static>(
    path: &'static str,
    summary: &'static str,
    handler: H,
) -> Operation {
    Operation::new(Method::PUT, path, Some(Role::Operator), summary, handler)
}

fn delete<H: Handler<T, Rest>, T: 'static>(
    path: &'static str,
    summary: &'static str,
    handler: H,
) -> Operation {
    Operation::new(Method::DELETE, path, Some(Role::Operator), summary, handler)
}

/// The operations of a kind of resource that has versions: those on single ones are tagged and conditional.
fn versioned(operations: Vec<Operation>) -> Vec<Operation> {
    let versioned = operations.into_iter().map(|mut operation| {
        let is_single = operation.path.ends_with("/{name}");
        let is_write = is_single && matches!(operation.method, Method::PUT | Method::DELETE);
        let is_read = is_single && operation.method == Method::GET;
        let is_create = operation.method == Method::POST && !operation.path.contains("{name}");
        let versions = &mut operation.versions;
        versions.tagged |= is_read || is_create || is_write && operation.method == Method::PUT;
        versions.if_match |= is_write;
        versions.if_none_match |= is_read;
        operation
    });
    versioned.collect()
}

fn for_role(role: Option<Role>, operation: Operation) -> Operation {
    Operation { role, ..operation }
}
