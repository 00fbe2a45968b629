-- Keys of the cloud, identities of nodes, and what nodes report.
--
-- Private keys are sealed (`seal`) before they are written. Rows about a node go with the node; that its uid must never
-- be let in again is kept in `deleted_nodes`.

-- Keys of the installation: node-authority, server-authority, server, install-token.
CREATE TABLE cloud_keys (
    name        TEXT NOT NULL PRIMARY KEY,
    -- DER; empty for a key without a certificate.
    certificate BLOB NOT NULL,
    sealed_key  BLOB NOT NULL,
    create_time TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Ed25519 keys that sign the desires of a tenant.
CREATE TABLE desire_keys (
    namespace   TEXT NOT NULL REFERENCES namespaces (name) ON DELETE CASCADE,
    key_id      TEXT NOT NULL,
    public_key  BLOB NOT NULL,
    sealed_key  BLOB NOT NULL,
    create_time TEXT NOT NULL,
    PRIMARY KEY (namespace, key_id)
) STRICT, WITHOUT ROWID;

-- The key a node proved to hold.
CREATE TABLE node_identities (
    namespace     TEXT    NOT NULL,
    uid           TEXT    NOT NULL,
    -- How often an install token bound a key to this node. A token counts only for the number it was made at.
    enrolments    INTEGER NOT NULL,
    -- sha256 of the SubjectPublicKeyInfo.
    public_key    BLOB    NOT NULL,
    -- After a renewal with a new key: the one before, good until the new one is used.
    previous_key  BLOB,
    -- Of the certificate issued last.
    fingerprint   TEXT    NOT NULL,
    not_after     TEXT    NOT NULL,
    activate_time TEXT    NOT NULL,
    PRIMARY KEY (namespace, uid),
    FOREIGN KEY (namespace, uid) REFERENCES nodes (namespace, uid) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- How often each install token that is still valid was used.
CREATE TABLE install_token_uses (
    namespace   TEXT    NOT NULL REFERENCES namespaces (name) ON DELETE CASCADE,
    token_id    TEXT    NOT NULL,
    uses        INTEGER NOT NULL,
    -- Seconds since 1970; the row is of no use after that.
    expires     INTEGER NOT NULL,
    PRIMARY KEY (namespace, token_id)
) STRICT, WITHOUT ROWID;

-- The durable half of what a node reports, and what it acknowledged.
CREATE TABLE node_reports (
    namespace        TEXT    NOT NULL,
    uid              TEXT    NOT NULL,
    status_digest    TEXT    NOT NULL DEFAULT '',
    -- Encoded baetyl.shadow.v1.NodeStatus.
    status           BLOB,
    status_time      TEXT,
    -- Raised when a node holds a newer desire of ours than we know of.
    epoch            INTEGER NOT NULL DEFAULT 0,
    -- The desire the node has on disk; empty digest = none.
    acked_epoch      INTEGER NOT NULL DEFAULT 0,
    acked_generation INTEGER NOT NULL DEFAULT 0,
    acked_digest     TEXT    NOT NULL DEFAULT '',
    -- Why the node refused the last one; empty = it did not.
    refused          TEXT    NOT NULL DEFAULT '',
    -- The last event of the node's own outbox that is stored.
    event_sequence   INTEGER NOT NULL DEFAULT 0,
    -- Written now and then; the newest is in memory.
    last_seen        TEXT,
    PRIMARY KEY (namespace, uid),
    FOREIGN KEY (namespace, uid) REFERENCES nodes (namespace, uid) ON DELETE CASCADE
) STRICT;

-- Bounded per node: the oldest go first.
CREATE TABLE node_events (
    namespace TEXT    NOT NULL,
    uid       TEXT    NOT NULL,
    -- Counts up per node, in order of arrival.
    id        INTEGER NOT NULL,
    -- Number in the node's outbox; none for events of the cloud about the node.
    sequence  INTEGER,
    -- By the clock of who raised it.
    time      TEXT    NOT NULL,
    -- By the clock of the cloud.
    received  TEXT    NOT NULL,
    -- Normal, Warning
    type      TEXT    NOT NULL,
    reason    TEXT    NOT NULL,
    about     TEXT    NOT NULL,
    message   TEXT    NOT NULL,
    -- How many events before this one were lost.
    dropped   INTEGER NOT NULL,
    PRIMARY KEY (namespace, uid, id),
    FOREIGN KEY (namespace, uid) REFERENCES nodes (namespace, uid) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
