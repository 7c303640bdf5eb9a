-- Times are microseconds since 1970-01-01T00:00:00Z. Keys and checkout tokens are SHA-256 hashes, never the secrets.

CREATE TABLE orgs (
    id           TEXT    NOT NULL PRIMARY KEY,
    name         TEXT,
    key_hash     BLOB    NOT NULL UNIQUE,
    plan         TEXT    NOT NULL,
    disabled     INTEGER NOT NULL DEFAULT 0,
    frozen       INTEGER NOT NULL DEFAULT 0,
    access_until INTEGER,
    created_at   INTEGER NOT NULL,
    -- A deleted organisation keeps its row, so that its key still says ORG_NOT_FOUND and not INVALID_ORG_KEY.
    deleted_at   INTEGER
) STRICT;

CREATE TABLE devices (
    -- AUTOINCREMENT: a late last_seen_at must never land on a device that took over a removed one's number.
    seq          INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    org_id       TEXT    NOT NULL REFERENCES orgs (id),
    device_id    TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    last_seen_at INTEGER,
    revoked_at   INTEGER,
    UNIQUE (org_id, device_id)
) STRICT;

CREATE INDEX devices_active ON devices (org_id) WHERE revoked_at IS NULL;

CREATE TABLE checkouts (
    token_hash BLOB    NOT NULL PRIMARY KEY,
    org_id     TEXT    NOT NULL REFERENCES orgs (id),
    plan       TEXT    NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at    INTEGER
) STRICT;
