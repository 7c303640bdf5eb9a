-- See SQLite's migration of that name for what the table and the column are for.
CREATE TABLE validators (
    org_id     TEXT   NOT NULL,
    device_id  TEXT   NOT NULL COLLATE "C",
    sidecar_id TEXT   NOT NULL,
    at         BIGINT NOT NULL,
    PRIMARY KEY (org_id, device_id, sidecar_id)
);

ALTER TABLE stops ADD COLUMN sidecar_id TEXT NOT NULL DEFAULT '';
UPDATE stops SET sidecar_id = COALESCE(substring(body FROM '"sidecar":"([0-9a-f]{32})"'), '');
ALTER TABLE stops DROP CONSTRAINT stops_org_id_device_id_run_id_key;
ALTER TABLE stops ADD CONSTRAINT stops_of_sidecars UNIQUE (org_id, device_id, sidecar_id, run_id);
