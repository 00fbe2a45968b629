-- Tenants, their resources, and the one counter per tenant that orders every change.
--
-- Rules: the namespace is in every primary key; a write that can change a desire takes the next revision of its
-- namespace and appends to `changes` in the same transaction; a row of `resource_versions` is never updated.
-- Times are RFC 3339 in UTC. JSON is text.

-- What this file is: `format` is raised by a migration that changes the meaning of what is stored, `min_reader` is
-- the oldest program format that may still open it.
CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO meta (key, value) VALUES ('format', '1'), ('min_reader', '1');

CREATE TABLE namespaces (
    name        TEXT    NOT NULL PRIMARY KEY,
    revision    INTEGER NOT NULL DEFAULT 0,
    create_time TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

-- Push signal, event feed and audit log at once.
CREATE TABLE changes (
    namespace  TEXT    NOT NULL REFERENCES namespaces (name) ON DELETE CASCADE,
    revision   INTEGER NOT NULL,
    -- Order inside one revision, from 1.
    seq        INTEGER NOT NULL,
    time       TEXT    NOT NULL,
    actor      TEXT    NOT NULL,
    -- create, update, delete
    verb       TEXT    NOT NULL,
    -- node, application, configuration, secret
    kind       TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    uid        TEXT,
    old_digest TEXT,
    new_digest TEXT,
    request_id TEXT    NOT NULL,
    PRIMARY KEY (namespace, revision, seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX changes_by_name ON changes (namespace, kind, name, revision);

CREATE TABLE nodes (
    namespace       TEXT    NOT NULL REFERENCES namespaces (name) ON DELETE CASCADE,
    name            TEXT    NOT NULL,
    uid             TEXT    NOT NULL,
    -- The revision that wrote this row.
    version         INTEGER NOT NULL,
    create_time     TEXT    NOT NULL,
    update_time     TEXT    NOT NULL,
    -- {key: value}, system labels included.
    labels          TEXT    NOT NULL,
    -- Desired node properties: {key: {"value": text, "time": time}}.
    properties      TEXT    NOT NULL DEFAULT '{}',
    -- Everything else an operator wrote (`NodeSpec`).
    spec            TEXT    NOT NULL,
    PRIMARY KEY (namespace, name)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX nodes_by_uid ON nodes (namespace, uid);

-- Uids that must never be let in again.
CREATE TABLE deleted_nodes (
    namespace TEXT    NOT NULL REFERENCES namespaces (name) ON DELETE CASCADE,
    uid       TEXT    NOT NULL,
    name      TEXT    NOT NULL,
    revision  INTEGER NOT NULL,
    time      TEXT    NOT NULL,
    PRIMARY KEY (namespace, uid)
) STRICT, WITHOUT ROWID;

-- The current version of every application, configuration and secret (registries and certificates are secrets).
CREATE TABLE resources (
    namespace   TEXT    NOT NULL REFERENCES namespaces (name) ON DELETE CASCADE,
    -- application, configuration, secret
    kind        TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    version     INTEGER NOT NULL,
    digest      TEXT    NOT NULL,
    -- Bytes of the body.
    size        INTEGER NOT NULL,
    create_time TEXT    NOT NULL,
    update_time TEXT    NOT NULL,
    labels      TEXT    NOT NULL,
    system      INTEGER NOT NULL,
    -- application: container, function …; secret: config, registry, certificate; configuration: empty.
    subtype     TEXT    NOT NULL,
    -- Applications: which nodes run it; empty = none.
    selector    TEXT    NOT NULL DEFAULT '',
    PRIMARY KEY (namespace, kind, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE resource_versions (
    namespace TEXT    NOT NULL REFERENCES namespaces (name) ON DELETE CASCADE,
    kind      TEXT    NOT NULL,
    name      TEXT    NOT NULL,
    -- The revision that wrote it.
    version   INTEGER NOT NULL,
    -- Of the plain body, also when it is sealed.
    digest    TEXT    NOT NULL,
    size      INTEGER NOT NULL,
    -- 1: the body is encrypted.
    sealed    INTEGER NOT NULL,
    body      BLOB    NOT NULL,
    PRIMARY KEY (namespace, kind, name, version)
) STRICT;

CREATE INDEX resource_versions_by_digest ON resource_versions (namespace, digest);

-- What the current version of an application references, at which version.
CREATE TABLE resource_refs (
    namespace TEXT    NOT NULL,
    app       TEXT    NOT NULL,
    kind      TEXT    NOT NULL,
    name      TEXT    NOT NULL,
    version   INTEGER NOT NULL,
    PRIMARY KEY (namespace, app, kind, name),
    FOREIGN KEY (namespace, kind, name) REFERENCES resources (namespace, kind, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX resource_refs_by_target ON resource_refs (namespace, kind, name);

-- Files uploaded by operators; the bytes lie in the object directory under their digest.
CREATE TABLE objects (
    namespace   TEXT    NOT NULL REFERENCES namespaces (name) ON DELETE CASCADE,
    name        TEXT    NOT NULL,
    digest      TEXT    NOT NULL,
    -- Hex, for Baetyl v2 edges.
    md5         TEXT    NOT NULL,
    size        INTEGER NOT NULL,
    create_time TEXT    NOT NULL,
    update_time TEXT    NOT NULL,
    PRIMARY KEY (namespace, name)
) STRICT, WITHOUT ROWID;

-- Large files the current version of a configuration names.
CREATE TABLE config_objects (
    namespace TEXT    NOT NULL,
    config    TEXT    NOT NULL,
    -- File name in the configuration's directory.
    file_name TEXT    NOT NULL,
    digest    TEXT    NOT NULL,
    -- Bytes; 0 = the author did not say.
    size      INTEGER NOT NULL,
    -- Where to fetch it; empty = from the cloud's own objects.
    url       TEXT    NOT NULL,
    -- Name of the cloud's object it was pinned from; empty for a url.
    object    TEXT    NOT NULL,
    unpack    TEXT    NOT NULL,
    PRIMARY KEY (namespace, config, file_name)
) STRICT, WITHOUT ROWID;

CREATE INDEX config_objects_by_digest ON config_objects (digest);
CREATE INDEX config_objects_by_object ON config_objects (namespace, object);

CREATE TABLE api_tokens (
    namespace   TEXT NOT NULL REFERENCES namespaces (name) ON DELETE CASCADE,
    name        TEXT NOT NULL,
    -- Hex of the sha256 of the token.
    hash        TEXT NOT NULL,
    -- admin, operator, viewer
    role        TEXT NOT NULL,
    create_time TEXT NOT NULL,
    PRIMARY KEY (namespace, name)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX api_tokens_by_hash ON api_tokens (hash);
