-- See SQLite's migration of that name for what the columns and the table are for.
ALTER TABLE orgs ADD COLUMN restore_needs BIGINT NOT NULL DEFAULT 1;
ALTER TABLE orgs ADD COLUMN stops_of_any BIGINT NOT NULL DEFAULT 0;
ALTER TABLE orgs ADD COLUMN stops_of_all BIGINT NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN stops BIGINT NOT NULL DEFAULT 0;

CREATE TABLE approvals (
    org_id     TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    action     TEXT    NOT NULL,
    any_stops  BIGINT  NOT NULL,
    all_stops  BIGINT  NOT NULL,
    asked_at   BIGINT  NOT NULL,
    expires_at BIGINT  NOT NULL,
    asked_by   TEXT    NOT NULL,
    key_mark   BYTEA   NOT NULL,
    key_own    BOOLEAN NOT NULL,
    reason     TEXT,
    state      TEXT    NOT NULL,
    decided_at BIGINT,
    decided_by TEXT,
    PRIMARY KEY (org_id, id)
);
