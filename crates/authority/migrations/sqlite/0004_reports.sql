-- What sidecars report, newest only: one row for each device and sidecar. `body` is JSON.
CREATE TABLE reports (
    org_id     TEXT    NOT NULL,
    device_id  TEXT    NOT NULL,
    sidecar_id TEXT    NOT NULL,
    heard_at   INTEGER NOT NULL,
    -- The sidecar's count: an older report that comes late changes nothing.
    sequence   INTEGER NOT NULL,
    -- All agents of the sidecar, whatever their devices.
    agents     INTEGER NOT NULL,
    body       TEXT    NOT NULL,
    PRIMARY KEY (org_id, device_id, sidecar_id)
) STRICT;

CREATE INDEX reports_by_sidecar ON reports (org_id, sidecar_id);

-- The newest stops of each device that sidecars told of. `body` is JSON.
CREATE TABLE stops (
    seq       INTEGER NOT NULL PRIMARY KEY,
    org_id    TEXT    NOT NULL,
    device_id TEXT    NOT NULL,
    run_id    TEXT    NOT NULL,
    began_at  INTEGER NOT NULL,
    body      TEXT    NOT NULL,
    UNIQUE (org_id, device_id, run_id)
) STRICT;

CREATE INDEX stops_by_time ON stops (org_id, device_id, began_at);

-- The newest of what happened on each device, as sidecars told. `life` and `number` are the sidecar's name for it, so
-- that to tell it twice is to tell it once. `body` is JSON.
CREATE TABLE timeline (
    seq        INTEGER NOT NULL PRIMARY KEY,
    org_id     TEXT    NOT NULL,
    device_id  TEXT    NOT NULL,
    sidecar_id TEXT    NOT NULL,
    life       INTEGER NOT NULL,
    number     INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    body       TEXT    NOT NULL,
    UNIQUE (org_id, device_id, sidecar_id, life, number)
) STRICT;

CREATE INDEX timeline_by_time ON timeline (org_id, device_id, at);
