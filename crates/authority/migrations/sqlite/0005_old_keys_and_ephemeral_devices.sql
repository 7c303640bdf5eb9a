-- The key before the current one, while both are valid together. A rotation without an overlap leaves no old hash but
-- its time, so that devices which have not asked with the new key since can still be named.
ALTER TABLE orgs ADD COLUMN old_key_hash BLOB;
ALTER TABLE orgs ADD COLUMN old_key_ends INTEGER;
CREATE UNIQUE INDEX orgs_by_old_key ON orgs (old_key_hash) WHERE old_key_hash IS NOT NULL;

-- Which key a device asked with last: the first six bytes of the key's hash. NULL when it has not asked since this
-- column was made.
ALTER TABLE device_seen ADD COLUMN key_mark BLOB;

-- Registered as ephemeral: removed when it has not been seen for a time, unless it is revoked.
ALTER TABLE devices ADD COLUMN ephemeral INTEGER NOT NULL DEFAULT 0;
CREATE INDEX devices_ephemeral ON devices (org_id, seq) WHERE ephemeral AND revoked_at IS NULL;

-- Whether it was ever revoked: what was told of its stops then outlives it.
ALTER TABLE devices ADD COLUMN was_revoked INTEGER NOT NULL DEFAULT 0;
UPDATE devices SET was_revoked = 1 WHERE revoked_at IS NOT NULL;
