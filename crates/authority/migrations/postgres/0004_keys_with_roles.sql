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

-- See there as well.
ALTER TABLE orgs ADD COLUMN off_own BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE orgs ADD COLUMN off_operator BOOLEAN NOT NULL DEFAULT FALSE;
UPDATE orgs SET off_operator = disabled AND COALESCE((SELECT actor FROM audit WHERE audit.org_id = orgs.id
    AND audit.verb = 'org/disable' ORDER BY audit.seq DESC LIMIT 1) LIKE '%uid:%', FALSE);
UPDATE orgs SET off_own = disabled AND NOT off_operator;
