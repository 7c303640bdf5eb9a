-- What sidecars report; see SQLite's migration of that name for what the tables are for. `body` stays text: nothing is
-- searched inside it, and JSONB would refuse a character that a report may hold.

CREATE TABLE reports (
    org_id     TEXT   NOT NULL,
    device_id  TEXT   NOT NULL COLLATE "C",
    sidecar_id TEXT   NOT NULL,
    heard_at   BIGINT NOT NULL,
    sequence   BIGINT NOT NULL,
    -- All agents of the sidecar, whatever their devices.
    agents     BIGINT NOT NULL,
    body       TEXT   NOT NULL,
    PRIMARY KEY (org_id, device_id, sidecar_id)
);

CREATE INDEX reports_by_sidecar ON reports (org_id, sidecar_id);

CREATE TABLE stops (
    seq       BIGINT NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    org_id    TEXT   NOT NULL,
    device_id TEXT   NOT NULL COLLATE "C",
    run_id    TEXT   NOT NULL,
    began_at  BIGINT NOT NULL,
    body      TEXT   NOT NULL,
    UNIQUE (org_id, device_id, run_id)
);

CREATE INDEX stops_by_time ON stops (org_id, device_id, began_at);

CREATE TABLE timeline (
    seq        BIGINT NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    org_id     TEXT   NOT NULL,
    device_id  TEXT   NOT NULL COLLATE "C",
    sidecar_id TEXT   NOT NULL,
    life       BIGINT NOT NULL,
    number     BIGINT NOT NULL,
    at         BIGINT NOT NULL,
    body       TEXT   NOT NULL,
    UNIQUE (org_id, device_id, sidecar_id, life, number)
);

CREATE INDEX timeline_by_time ON timeline (org_id, device_id, at);
