-- What sidecars report, newest only: one row for each device and sidecar. `body` is JSON.
CREATE TABLE reports (
    org_id     TEXT    NOT NULL,
    device_id  TEXT    NOT NULL,
    sidecar_id TEXT    NOT NULL,
    heard_at   INTEGER NOT NULL,
    body       TEXT    NOT NULL,
    PRIMARY KEY (org_id, device_id, sidecar_id)
) STRICT;

CREATE INDEX reports_by_sidecar ON reports (org_id, sidecar_id);

-- The newest stops of each device that sidecars told of. `body` is JSON.
CREATE TABLE stops (
    org_id    TEXT    NOT NULL,
    device_id TEXT    NOT NULL,
    run_id    TEXT    NOT NULL,
    began_at  INTEGER NOT NULL,
    body      TEXT    NOT NULL,
    PRIMARY KEY (org_id, device_id, run_id)
) STRICT;

CREATE INDEX stops_by_time ON stops (org_id, device_id, began_at);
