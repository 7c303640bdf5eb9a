-- See SQLite's migration of that name for what the columns are for.
ALTER TABLE orgs ADD COLUMN old_key_hash BYTEA;
ALTER TABLE orgs ADD COLUMN old_key_ends BIGINT;
CREATE UNIQUE INDEX orgs_by_old_key ON orgs (old_key_hash) WHERE old_key_hash IS NOT NULL;

ALTER TABLE device_seen ADD COLUMN key_mark BYTEA;

ALTER TABLE devices ADD COLUMN ephemeral BOOLEAN NOT NULL DEFAULT FALSE;
CREATE INDEX devices_ephemeral ON devices (org_id, seq) WHERE ephemeral AND revoked_at IS NULL;

-- Whether it was ever revoked: what was told of its stops then outlives it.
ALTER TABLE devices ADD COLUMN was_revoked BOOLEAN NOT NULL DEFAULT FALSE;
UPDATE devices SET was_revoked = TRUE WHERE revoked_at IS NOT NULL;
