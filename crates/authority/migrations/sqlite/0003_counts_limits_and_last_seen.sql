-- How many devices are active, kept in the transaction of each change: counting them anew would make a registration in a
-- large fleet slower than one in a small fleet.
ALTER TABLE orgs ADD COLUMN active INTEGER NOT NULL DEFAULT 0;
UPDATE orgs SET active = (SELECT COUNT(*) FROM devices WHERE devices.org_id = orgs.id AND devices.revoked_at IS NULL);
DROP INDEX devices_active;

-- A limit of the operator's own instead of the plan's.
ALTER TABLE orgs ADD COLUMN device_limit INTEGER;

-- Narrow rows: every device's time is written again and again, and a page of these holds hundreds of them.
CREATE TABLE device_seen (
    seq INTEGER NOT NULL PRIMARY KEY,
    at  INTEGER NOT NULL
) STRICT;
INSERT INTO device_seen (seq, at) SELECT seq, last_seen_at FROM devices WHERE last_seen_at IS NOT NULL;
ALTER TABLE devices DROP COLUMN last_seen_at;

-- A checkout has a number that may be shown, and a second secret, given to the operator alone, that may confirm it.
DROP TABLE checkouts;
CREATE TABLE checkouts (
    token_hash   BLOB    NOT NULL PRIMARY KEY,
    confirm_hash BLOB    UNIQUE,
    number       TEXT    NOT NULL UNIQUE,
    org_id       TEXT    NOT NULL REFERENCES orgs (id),
    plan         TEXT    NOT NULL,
    expires_at   INTEGER NOT NULL,
    used_at      INTEGER
) STRICT;
