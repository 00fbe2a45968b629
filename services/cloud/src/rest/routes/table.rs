//! The rows of the table, by what they are about.

use baetyl_model::resource::{
    Application, Configuration, ConfigurationView, NodeInput, Registry, SecretView,
};

use super::{Input, Operation, Output, delete, for_role, get, post, put, versioned};
use crate::openapi;
use crate::rest::nodes::parts;
use crate::rest::{
    apps, certificates, configs, functions, namespace, nodes, objects, registries, secrets, shared,
};
use crate::store::Role;

/// The table.
pub(crate) fn operations() -> Vec<Operation> {
    let mut all = about_the_cloud();
    all.extend(versioned(of_nodes()));
    all.extend(below_nodes());
    all.extend(installation_of_nodes());
    all.extend(cores_of_nodes());
    all.extend(versioned(of_apps()));
    all.extend(versioned(of_configs()));
    all.extend(versioned(of_secrets()));
    all.extend(versioned(of_registries()));
    all.extend(versioned(of_certificates()));
    all.extend(of_objects());
    all
}

async fn health() -> axum::response::Response {
    crate::rest::success()
}

fn about_the_cloud() -> Vec<Operation> {
    use namespace::NamespaceView;
    vec![
        for_role(None, get("/health", "Whether the cloud answers", health)),
        for_role(
            None,
            get("/openapi.json", "This document", openapi::document),
        ),
        Operation {
            output: Output::Html,
            ..for_role(
                None,
                get("/docs", "This document for people", openapi::page),
            )
        },
        get(
            "/v1/namespace",
            "The namespace of the token",
            namespace::get,
        )
        .gives::<NamespaceView>(),
        for_role(
            Some(Role::Admin),
            post(
                "/v1/namespace",
                "Create the namespace of the token",
                namespace::create,
            )
            .gives::<NamespaceView>(),
        ),
        get(
            "/v1/functions",
            "What functions can be written in",
            functions::list,
        )
        .gives::<functions::FunctionsView>(),
    ]
}

fn of_nodes() -> Vec<Operation> {
    use nodes::Names;
    use nodes::view::NodeView;
    vec![
        post("/v1/nodes", "Describe a node", nodes::create)
            .takes::<NodeInput>()
            .gives::<NodeView>(),
        get("/v1/nodes", "List nodes", nodes::list)
            .lists::<NodeView>()
            .query(&["cluster", "ready", "createSort"]),
        for_role(
            Some(Role::Viewer),
            put("/v1/nodes", "Read several nodes by name", nodes::batch)
                .takes::<Names>()
                .lists::<NodeView>()
                .query(&["batch"]),
        ),
        put(
            "/v1/nodes/{name}",
            "Replace the description of a node",
            nodes::replace,
        )
        .takes::<NodeInput>()
        .gives::<NodeView>(),
        delete(
            "/v1/nodes/{name}",
            "Delete a node for good; its certificate is refused from then on",
            nodes::delete,
        ),
    ]
}

fn below_nodes() -> Vec<Operation> {
    use nodes::view::NodeView;
    vec![
        // Tagged, but never 304: the report changes without the version.
        get(
            "/v1/nodes/{name}",
            "A node with its report and its desire",
            nodes::get,
        )
        .gives::<NodeView>()
        .tagged(),
        get(
            "/v1/nodes/{name}/stats",
            "A node with its report",
            nodes::stats,
        )
        .gives::<NodeView>(),
        get(
            "/v1/nodes/{name}/apps",
            "Applications a node shall run",
            parts::apps,
        )
        .lists::<shared::AppItem>(),
        get(
            "/v1/nodes/{name}/functions",
            "Functions a node shall run",
            parts::functions,
        )
        .gives::<parts::FunctionNames>(),
        get(
            "/v1/nodes/{name}/deploys",
            "Changes of a node and its applications, newest first",
            parts::deploys,
        )
        .lists::<parts::DeployView>(),
        get(
            "/v1/nodes/{name}/events",
            "What happened on a node, newest first",
            parts::events,
        )
        .gives::<parts::EventsView>()
        .query(&["before", "limit"]),
        put(
            "/v1/nodes/{name}/mode",
            "Whether the cloud tells the node what to run",
            parts::set_mode,
        )
        .takes::<parts::ModeInput>()
        .if_match(),
        get(
            "/v1/nodes/{name}/properties",
            "Reported and desired properties",
            parts::properties,
        )
        .gives::<parts::PropertiesView>()
        .tagged(),
        put(
            "/v1/nodes/{name}/properties",
            "Replace the desired properties",
            parts::set_properties,
        )
        .takes::<parts::PropertiesView>()
        .gives::<parts::PropertiesView>()
        .tagged()
        .if_match(),
    ]
}

fn installation_of_nodes() -> Vec<Operation> {
    use nodes::install;
    vec![
        for_role(
            Some(Role::Operator),
            get(
                "/v1/nodes/{name}/init",
                "The command that makes a machine this node",
                install::init,
            )
            .gives::<install::InitView>()
            .query(&[
                "mode",
                "path",
                "class",
                "registry",
                "pullSecret",
                "kubeNode",
                "tokenSeconds",
            ]),
        ),
        for_role(
            Some(Role::Operator),
            get(
                "/v1/nodes/{name}/init/bundle",
                "What a cluster without a network needs besides images to become this node",
                install::bundle,
            )
            .gives::<install::BundleView>()
            .query(&[
                "class",
                "registry",
                "pullSecret",
                "distribution",
                "tokenSeconds",
            ]),
        ),
    ]
}

fn cores_of_nodes() -> Vec<Operation> {
    use nodes::core;
    vec![
        get(
            "/v1/nodes/{name}/core/configs",
            "Settings of the core of a node",
            core::configs,
        )
        .gives::<core::CoreConfigs>()
        .tagged(),
        put(
            "/v1/nodes/{name}/core/configs",
            "Replace the settings of the core of a node",
            core::set_configs,
        )
        .takes::<core::CoreConfigs>()
        .gives::<core::CoreConfigs>()
        .tagged()
        .if_match(),
        get(
            "/v1/nodes/{name}/core/versions",
            "Versions the core of a node can have",
            core::versions,
        )
        .gives::<core::CoreVersions>(),
    ]
}

fn of_apps() -> Vec<Operation> {
    vec![
        post("/v1/apps", "Create an application", apps::create)
            .takes::<Application>()
            .gives::<Application>()
            .query(&["base"]),
        get("/v1/apps", "List applications", apps::list).lists::<shared::AppItem>(),
        get("/v1/apps/{name}", "An application", apps::get).gives::<Application>(),
        put("/v1/apps/{name}", "Replace an application", apps::replace)
            .takes::<Application>()
            .gives::<Application>(),
        delete("/v1/apps/{name}", "Delete an application", apps::delete),
        get(
            "/v1/apps/{name}/configs",
            "Configurations it references",
            apps::configs,
        )
        .lists::<Configuration>(),
        get(
            "/v1/apps/{name}/secrets",
            "Secrets it references",
            apps::secrets,
        )
        .lists::<SecretView>(),
        get(
            "/v1/apps/{name}/registries",
            "Registries it references",
            apps::registries,
        )
        .lists::<Registry>(),
        get(
            "/v1/apps/{name}/certificates",
            "Certificates it references",
            apps::certificates,
        )
        .lists::<certificates::CertificateView>(),
    ]
}

fn of_configs() -> Vec<Operation> {
    type View = ConfigurationView;
    vec![
        post("/v1/configs", "Create a configuration", configs::create)
            .takes::<View>()
            .gives::<View>(),
        get(
            "/v1/configs",
            "List configurations, without data",
            configs::list,
        )
        .lists::<Configuration>(),
        get("/v1/configs/{name}", "A configuration", configs::get).gives::<View>(),
        put(
            "/v1/configs/{name}",
            "Replace a configuration; applications that use it follow",
            configs::replace,
        )
        .takes::<View>()
        .gives::<View>(),
        delete(
            "/v1/configs/{name}",
            "Delete a configuration nobody uses",
            configs::delete,
        ),
        get(
            "/v1/configs/{name}/apps",
            "Applications that use it",
            configs::apps,
        )
        .lists::<shared::AppItem>(),
    ]
}

fn of_secrets() -> Vec<Operation> {
    vec![
        post("/v1/secrets", "Create a secret", secrets::create)
            .takes::<SecretView>()
            .gives::<SecretView>(),
        get("/v1/secrets", "List secrets, without data", secrets::list).lists::<SecretView>(),
        get(
            "/v1/secrets/{name}",
            "A secret; its data for operators only",
            secrets::get,
        )
        .gives::<SecretView>(),
        put(
            "/v1/secrets/{name}",
            "Replace a secret; applications that use it follow",
            secrets::replace,
        )
        .takes::<SecretView>()
        .gives::<SecretView>(),
        delete(
            "/v1/secrets/{name}",
            "Delete a secret nobody uses",
            secrets::delete,
        ),
        get(
            "/v1/secrets/{name}/apps",
            "Applications that use it",
            secrets::apps,
        )
        .lists::<shared::AppItem>(),
    ]
}

fn of_registries() -> Vec<Operation> {
    use registries::Refresh;
    vec![
        post(
            "/v1/registries",
            "Create an image registry",
            registries::create,
        )
        .takes::<Registry>()
        .gives::<Registry>(),
        get("/v1/registries", "List image registries", registries::list).lists::<Registry>(),
        get(
            "/v1/registries/{name}",
            "An image registry, without password",
            registries::get,
        )
        .gives::<Registry>(),
        put(
            "/v1/registries/{name}",
            "Replace an image registry; an empty field keeps its value",
            registries::replace,
        )
        .takes::<Registry>()
        .gives::<Registry>(),
        post(
            "/v1/registries/{name}/refresh",
            "Set a new password",
            registries::refresh,
        )
        .takes::<Refresh>()
        .gives::<Registry>()
        .tagged()
        .if_match(),
        delete(
            "/v1/registries/{name}",
            "Delete an image registry nobody uses",
            registries::delete,
        ),
        get(
            "/v1/registries/{name}/apps",
            "Applications that use it",
            registries::apps,
        )
        .lists::<shared::AppItem>(),
    ]
}

fn of_certificates() -> Vec<Operation> {
    use certificates::CertificateView;
    vec![
        post(
            "/v1/certificates",
            "Create a certificate with its key",
            certificates::create,
        )
        .takes::<CertificateView>()
        .gives::<CertificateView>(),
        get("/v1/certificates", "List certificates", certificates::list).lists::<CertificateView>(),
        get(
            "/v1/certificates/{name}",
            "A certificate, without key",
            certificates::get,
        )
        .gives::<CertificateView>(),
        put(
            "/v1/certificates/{name}",
            "Replace a certificate; applications that use it follow",
            certificates::replace,
        )
        .takes::<CertificateView>()
        .gives::<CertificateView>(),
        delete(
            "/v1/certificates/{name}",
            "Delete a certificate nobody uses",
            certificates::delete,
        ),
        get(
            "/v1/certificates/{name}/apps",
            "Applications that use it",
            certificates::apps,
        )
        .lists::<shared::AppItem>(),
    ]
}

fn of_objects() -> Vec<Operation> {
    use objects::ObjectView;
    vec![
        get("/v1/objects", "List uploaded files", objects::list).lists::<ObjectView>(),
        Operation {
            input: Input::Bytes,
            ..put("/v1/objects/{name}", "Upload a file", objects::put).gives::<ObjectView>()
        },
        get(
            "/v1/objects/{name}",
            "Digests and size of an uploaded file",
            objects::get,
        )
        .gives::<ObjectView>(),
        delete(
            "/v1/objects/{name}",
            "Delete an uploaded file no configuration is pinned to",
            objects::delete,
        ),
    ]
}
