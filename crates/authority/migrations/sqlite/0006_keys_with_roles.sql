-- Keys beside the one of the organisation's own row, which has the role admin. A rotation adds a row and gives the one
-- before an end, so that both are valid together; a key that has ended keeps its row for a while, so that it can be named.
CREATE TABLE org_keys (
    key_hash   BLOB    NOT NULL PRIMARY KEY,
    org_id     TEXT    NOT NULL REFERENCES orgs (id),
    -- host, stop, read, operate or admin
    role       TEXT    NOT NULL,
    -- The devices that it may work for, as a pattern; NULL for all. Of host keys only.
    devices    TEXT,
    name       TEXT,
    created_at INTEGER NOT NULL,
    -- Invalid from this time on; NULL for never.
    ends       INTEGER,
    -- Whether another key has taken its place.
    replaced   INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE INDEX org_keys_by_org ON org_keys (org_id);

-- When each key was last used, to about a minute, by the first six bytes of its hash. Of the organisations' own keys too.
CREATE TABLE key_used (
    key_mark BLOB    NOT NULL PRIMARY KEY,
    at       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
