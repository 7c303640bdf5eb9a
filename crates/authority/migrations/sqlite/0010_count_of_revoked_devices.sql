-- A new device is registered only while the organisation has not too many revoked ones. This finds them without reading the
-- active ones.
CREATE INDEX devices_revoked ON devices (org_id) WHERE revoked_at IS NOT NULL;
