-- Times are microseconds since 1970-01-01T00:00:00Z. Keys and checkout tokens are SHA-256 hashes, never the secrets.
-- The tables are those of SQLite's migrations up to the same promises; see there for what the columns are for.

CREATE TABLE orgs (
    id           TEXT    NOT NULL PRIMARY KEY,
    name         TEXT,
    key_hash     BYTEA   NOT NULL UNIQUE,
    plan         TEXT    NOT NULL,
    device_limit BIGINT,
    disabled     BOOLEAN NOT NULL DEFAULT FALSE,
    frozen       BOOLEAN NOT NULL DEFAULT FALSE,
    access_until BIGINT,
    created_at   BIGINT  NOT NULL,
    deleted_at   BIGINT,
    active       BIGINT  NOT NULL DEFAULT 0
);

CREATE TABLE devices (
    seq           BIGINT NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    org_id        TEXT   NOT NULL REFERENCES orgs (id),
    -- Bytewise, as in SQLite: the order of a list must not depend on the server's locale.
    device_id     TEXT   NOT NULL COLLATE "C",
    created_at    BIGINT NOT NULL,
    revoked_at    BIGINT,
    revoke_reason TEXT,
    UNIQUE (org_id, device_id)
);

CREATE TABLE device_seen (
    seq BIGINT NOT NULL PRIMARY KEY,
    at  BIGINT NOT NULL
);

CREATE TABLE checkouts (
    token_hash   BYTEA  NOT NULL PRIMARY KEY,
    confirm_hash BYTEA  UNIQUE,
    number       TEXT   NOT NULL UNIQUE,
    org_id       TEXT   NOT NULL REFERENCES orgs (id),
    plan         TEXT   NOT NULL,
    expires_at   BIGINT NOT NULL,
    used_at      BIGINT
);

CREATE TABLE audit (
    seq        BIGINT NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         BIGINT NOT NULL,
    org_id     TEXT   NOT NULL,
    request_id TEXT   NOT NULL,
    actor      TEXT   NOT NULL,
    verb       TEXT   NOT NULL,
    device_id  TEXT,
    outcome    TEXT   NOT NULL,
    reason     TEXT,
    details    JSONB  NOT NULL
);

CREATE INDEX audit_by_org ON audit (org_id, seq);
