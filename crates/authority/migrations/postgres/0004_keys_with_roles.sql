-- See SQLite's migration of that name for what the tables are for. A server of an earlier version goes on beside them: it
-- knows the organisations' own keys, and refuses the others.
CREATE TABLE org_keys (
    key_hash   BYTEA   NOT NULL PRIMARY KEY,
    org_id     TEXT    NOT NULL REFERENCES orgs (id),
    role       TEXT    NOT NULL,
    devices    TEXT,
    name       TEXT,
    created_at BIGINT  NOT NULL,
    ends       BIGINT,
    replaced   BOOLEAN NOT NULL DEFAULT FALSE
);

CREATE INDEX org_keys_by_org ON org_keys (org_id);

CREATE TABLE key_used (
    key_mark BYTEA  NOT NULL PRIMARY KEY,
    at       BIGINT NOT NULL
);
