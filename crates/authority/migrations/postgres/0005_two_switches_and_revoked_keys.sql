-- See SQLite's migration of that name for what the columns are for.
ALTER TABLE orgs ADD COLUMN off_own BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE orgs ADD COLUMN off_operator BOOLEAN NOT NULL DEFAULT FALSE;
UPDATE orgs SET off_own = TRUE WHERE disabled
    AND EXISTS (SELECT 1 FROM audit WHERE audit.org_id = orgs.id AND audit.verb = 'org/disable'
        AND audit.seq > COALESCE((SELECT MAX(seq) FROM audit AS past WHERE past.org_id = orgs.id AND past.verb = 'org/enable'), 0))
    AND NOT EXISTS (SELECT 1 FROM audit WHERE audit.org_id = orgs.id AND audit.verb = 'org/disable'
        AND audit.actor NOT LIKE '%key:%'
        AND audit.seq > COALESCE((SELECT MAX(seq) FROM audit AS past WHERE past.org_id = orgs.id AND past.verb = 'org/enable'), 0));

ALTER TABLE org_keys ADD COLUMN revoked BOOLEAN NOT NULL DEFAULT FALSE;
