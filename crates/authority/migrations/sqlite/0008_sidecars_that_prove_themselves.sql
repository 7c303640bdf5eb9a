-- Which sidecars validated which device, and when, to about a minute, and at least once after each revoke. A sidecar is in
-- it only when it proved with its secret that it has the id.
CREATE TABLE validators (
    org_id     TEXT    NOT NULL,
    device_id  TEXT    NOT NULL,
    sidecar_id TEXT    NOT NULL,
    at         INTEGER NOT NULL,
    PRIMARY KEY (org_id, device_id, sidecar_id)
) STRICT;

-- A stop belongs to the sidecar that reports it: another one cannot rewrite it.
CREATE TABLE stops_by_sidecar (
    seq        INTEGER NOT NULL PRIMARY KEY,
    org_id     TEXT    NOT NULL,
    device_id  TEXT    NOT NULL,
    sidecar_id TEXT    NOT NULL,
    run_id     TEXT    NOT NULL,
    began_at   INTEGER NOT NULL,
    body       TEXT    NOT NULL,
    UNIQUE (org_id, device_id, sidecar_id, run_id)
) STRICT;
INSERT INTO stops_by_sidecar (seq, org_id, device_id, sidecar_id, run_id, began_at, body)
    SELECT seq, org_id, device_id, COALESCE(json_extract(body, '$.sidecar'), ''), run_id, began_at, body FROM stops;
DROP TABLE stops;
ALTER TABLE stops_by_sidecar RENAME TO stops;
CREATE INDEX stops_by_time ON stops (org_id, device_id, began_at);
