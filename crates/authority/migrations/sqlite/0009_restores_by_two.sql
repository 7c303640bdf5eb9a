-- How many keys a restore needs, and how often the organisation stopped any device, and all of them: a request for a restore is
-- void after a stop that came later. Stops are counted only while restores need two.
ALTER TABLE orgs ADD COLUMN restore_needs INTEGER NOT NULL DEFAULT 1;
ALTER TABLE orgs ADD COLUMN stops_of_any INTEGER NOT NULL DEFAULT 0;
ALTER TABLE orgs ADD COLUMN stops_of_all INTEGER NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN stops INTEGER NOT NULL DEFAULT 0;

-- Restores that wait for a second key, or did. `action` is JSON.
CREATE TABLE approvals (
    org_id     TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    action     TEXT    NOT NULL,
    any_stops  INTEGER NOT NULL,
    all_stops  INTEGER NOT NULL,
    asked_at   INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    asked_by   TEXT    NOT NULL,
    key_mark   BLOB    NOT NULL,
    key_own    INTEGER NOT NULL,
    reason     TEXT,
    state      TEXT    NOT NULL,
    decided_at INTEGER,
    decided_by TEXT,
    PRIMARY KEY (org_id, id)
) STRICT;
