-- Execution has two switches, of which either is enough: the organisation's own, and the operator's, which no key of the
-- organisation takes back. `disabled` is what both come to: a server of an earlier version reads and writes that alone. So
-- what is off and by no switch is the operator's, and what is on is on whatever these say.
ALTER TABLE orgs ADD COLUMN off_own INTEGER NOT NULL DEFAULT 0;
ALTER TABLE orgs ADD COLUMN off_operator INTEGER NOT NULL DEFAULT 0;
-- Of those that are off, the organisation's own are the ones that a key switched off and no operator since the last time
-- they were on.
UPDATE orgs SET off_own = 1 WHERE disabled
    AND EXISTS (SELECT 1 FROM audit WHERE audit.org_id = orgs.id AND audit.verb = 'org/disable'
        AND audit.seq > COALESCE((SELECT MAX(seq) FROM audit AS past WHERE past.org_id = orgs.id AND past.verb = 'org/enable'), 0))
    AND NOT EXISTS (SELECT 1 FROM audit WHERE audit.org_id = orgs.id AND audit.verb = 'org/disable'
        AND audit.actor NOT LIKE '%key:%'
        AND audit.seq > COALESCE((SELECT MAX(seq) FROM audit AS past WHERE past.org_id = orgs.id AND past.verb = 'org/enable'), 0));

-- Invalid whatever a clock says, unlike a key whose time has come.
ALTER TABLE org_keys ADD COLUMN revoked INTEGER NOT NULL DEFAULT 0;
