-- Why a device was revoked, in the operator's words; only while it is revoked.
ALTER TABLE devices ADD COLUMN revoke_reason TEXT;

-- One row for each management call, written in the transaction of what it did.
CREATE TABLE audit (
    seq        INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at         INTEGER NOT NULL,
    -- No foreign key: the record outlives what it is about.
    org_id     TEXT    NOT NULL,
    request_id TEXT    NOT NULL,
    -- key:<fingerprint>, uid:<number>, console:<session>, address:<ip>, checkout:<number>, server
    actor      TEXT    NOT NULL,
    verb       TEXT    NOT NULL,
    -- The one device it names; those of a batch are in the details.
    device_id  TEXT,
    outcome    TEXT    NOT NULL,
    reason     TEXT,
    -- A JSON object: counts, the ids of a batch that changed, a new plan.
    details    TEXT    NOT NULL
) STRICT;

CREATE INDEX audit_by_org ON audit (org_id, seq);
