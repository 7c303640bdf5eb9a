-- See SQLite's migration of that name.
CREATE INDEX devices_revoked ON devices (org_id) WHERE revoked_at IS NOT NULL;
