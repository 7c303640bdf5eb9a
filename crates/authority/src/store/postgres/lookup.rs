//! The look-up for validations: one statement for all that wait.
//!
//! The result has one row for each key, with the organisation once and what was found about its devices in arrays. The
//! simpler form, one row for each question, costs `PostgreSQL` twice as much and this process a third more: most of it
//! for the repeated columns of the same organisation.

use std::collections::HashMap;

use machineid_protocol::DeviceId;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::super::columns::{held_key, key_columns, role_key, status, time};
use super::super::{KnownDevice, Presented, StoreError};
use super::rows::{ORG_COLUMNS, org, org_columns};
use crate::keys::SecretHash;

/// One validation's question.
#[derive(Clone, Debug)]
pub(super) struct LookupQuestion {
    pub(super) key: SecretHash,
    pub(super) device: Option<DeviceId>,
}

/// The result for one question.
pub(super) type LookupResult = Result<Option<Presented>, StoreError>;

/// Questions grouped by key: the parameters of the statement.
#[derive(Debug, Default)]
struct Sorted<'a> {
    keys: Vec<&'a SecretHash>,
    /// For each key, the positions of its questions.
    places: Vec<Vec<usize>>,
    /// The devices asked about, grouped by key.
    devices: Vec<&'a str>,
    /// For each device, the position of its question.
    device_places: Vec<usize>,
    /// For each key, the numbers of its first and last device, counted from 1 as `PostgreSQL` does. Without devices,
    /// the last is before the first.
    first: Vec<i32>,
    last: Vec<i32>,
}

impl<'a> Sorted<'a> {
    fn new(asked: &[&'a LookupQuestion]) -> Result<Self, StoreError> {
        let mut sorted = Self::default();
        let mut known = HashMap::new();
        for (place, asked) in asked.iter().enumerate() {
            let key = *known.entry(asked.key.as_bytes()).or_insert_with(|| {
                sorted.keys.push(&asked.key);
                sorted.places.push(Vec::new());
                sorted.keys.len() - 1
            });
            sorted.places[key].push(place);
        }
        let number = |count: usize| i32::try_from(count).map_err(|_| StoreError::Corrupt("question"));
        for places in &sorted.places {
            sorted.first.push(number(sorted.devices.len() + 1)?);
            for &place in places {
                if let Some(device) = &asked[place].device {
                    sorted.devices.push(device.as_str());
                    sorted.device_places.push(place);
                }
            }
            sorted.last.push(number(sorted.devices.len())?);
        }
        Ok(sorted)
    }
}

/// The statement. Each table is entered by a complete key of one index, whatever the planner knows of the tables: an `OR`
/// over the keys scans all organisations, and a plan made while the tables were empty scans all devices of one. `OFFSET 0`
/// keeps the planner from pulling a sub-select apart.
const LOOK_UP: &str = concat!(
    "SELECT ",
    org_columns!(),
    ", found.numbers, found.seqs, found.revoked_at, found.reasons, keys.number,
       pg_is_in_recovery(), current_setting('transaction_read_only') = 'on', org_keys.key_hash, ",
    key_columns!(),
    "
     FROM UNNEST($1::bytea[], $2::int4[], $3::int4[]) WITH ORDINALITY AS keys (key_hash, first, last, number)
     LEFT JOIN LATERAL (
         SELECT * FROM org_keys AS held WHERE held.key_hash = keys.key_hash OFFSET 0
     ) AS org_keys ON true
     LEFT JOIN orgs ON orgs.id = COALESCE(
         org_keys.org_id,
         (SELECT own.id FROM orgs AS own WHERE own.key_hash = keys.key_hash),
         (SELECT old.id FROM orgs AS old WHERE old.old_key_hash = keys.key_hash)
     )
     LEFT JOIN LATERAL (
         SELECT array_agg(asked.number) AS numbers, array_agg(devices.seq) AS seqs,
                array_agg(devices.revoked_at) AS revoked_at, array_agg(devices.revoke_reason) AS reasons
         FROM UNNEST(($4::text[])[keys.first:keys.last]) WITH ORDINALITY AS asked (device_id, number)
         CROSS JOIN LATERAL (
             SELECT seq, revoked_at, revoke_reason FROM devices AS held
             WHERE held.org_id = orgs.id AND held.device_id = asked.device_id OFFSET 0
         ) AS devices
     ) AS found ON true"
);

/// Answers all questions from one snapshot, which begins after this call. Fails when the server is not the primary: on
/// a standby, a revoke that was answered may not have arrived yet.
///
/// Each key makes at least one row, so that there is always a row that says where the statement ran.
pub(super) async fn look_up(
    connection: &mut PgConnection,
    asked: &[&LookupQuestion],
) -> Result<Vec<LookupResult>, StoreError> {
    let sorted = Sorted::new(asked)?;
    let keys: Vec<&[u8]> = sorted.keys.iter().map(|key| key.as_bytes()).collect();
    let rows = sqlx::query(LOOK_UP)
        .bind(keys)
        .bind(&sorted.first)
        .bind(&sorted.last)
        .bind(&sorted.devices)
        .fetch_all(connection)
        .await?;
    let first = rows.first().ok_or(StoreError::Corrupt("answer"))?;
    if first.try_get(ORG_COLUMNS + 5)? {
        return Err(StoreError::Standby);
    }
    if first.try_get(ORG_COLUMNS + 6)? {
        return Err(StoreError::ReadOnly);
    }
    let mut found: Vec<LookupResult> = asked.iter().map(|_| Err(StoreError::Corrupt("answer"))).collect();
    for row in &rows {
        let number: i64 = row.try_get(ORG_COLUMNS + 4)?;
        let key = usize::try_from(number - 1).ok().filter(|&key| key < sorted.keys.len());
        let key = key.ok_or(StoreError::Corrupt("answer"))?;
        // An unreadable row fails only the requests that came with this key.
        match read(row, &sorted, key) {
            Ok(answers) => {
                for (place, answer) in answers {
                    found[place] = answer;
                }
            }
            Err(error) => {
                for &place in &sorted.places[key] {
                    found[place] = Err(error.clone());
                }
            }
        }
    }
    Ok(found)
}

/// Decodes the answers to all questions of one key, with their positions.
fn read(row: &PgRow, sorted: &Sorted<'_>, key: usize) -> Result<Vec<(usize, LookupResult)>, StoreError> {
    let places = sorted.places[key].iter().copied();
    let Some(current) = row.try_get::<Option<&[u8]>, _>(2)? else {
        return Ok(places.map(|place| (place, Ok(None))).collect());
    };
    let asked = *sorted.keys[key];
    let held = match row.try_get::<Option<&[u8]>, _>(ORG_COLUMNS + 7)? {
        Some(stored) if asked.matches(stored) => Some(role_key(row, ORG_COLUMNS + 8)?),
        Some(_) | None => held_key(asked, current, row.try_get(11)?, row.try_get(12)?)?,
    };
    let Some(held) = held else {
        return Ok(places.map(|place| (place, Ok(None))).collect());
    };
    let org = org(row)?;
    let mut devices = devices(row, sorted, key)?;
    let answer = |place| {
        let device = devices.remove(&place).transpose();
        (place, device.map(|device| Some(Presented::new(held.clone(), org.clone(), device))))
    };
    Ok(places.map(answer).collect())
}

/// The devices that were found, by the positions of their questions.
fn devices(
    row: &PgRow,
    sorted: &Sorted<'_>,
    key: usize,
) -> Result<HashMap<usize, Result<KnownDevice, StoreError>>, StoreError> {
    // An aggregate of nothing is NULL.
    let Some(numbers) = row.try_get::<Option<Vec<i64>>, _>(ORG_COLUMNS)? else { return Ok(HashMap::new()) };
    let seqs: Vec<i64> = row.try_get(ORG_COLUMNS + 1)?;
    let revoked: Vec<Option<i64>> = row.try_get(ORG_COLUMNS + 2)?;
    let reasons: Vec<Option<String>> = row.try_get(ORG_COLUMNS + 3)?;
    if seqs.len() != numbers.len() || revoked.len() != numbers.len() || reasons.len() != numbers.len() {
        return Err(StoreError::Corrupt("answer"));
    }
    let own = sorted.device_places.get(usize::try_from(sorted.first[key] - 1).unwrap_or(usize::MAX)..);
    let found = numbers.into_iter().zip(seqs).zip(revoked).zip(reasons);
    let device = |(((number, seq), revoked_at), revoke_reason): (((i64, _), Option<i64>), _)| {
        let number = usize::try_from(number - 1).ok();
        let place = number.and_then(|number| own?.get(number)).ok_or(StoreError::Corrupt("answer"))?;
        let at = revoked_at.map(time).transpose();
        Ok((*place, at.map(|at| KnownDevice { seq, status: status(revoked_at), revoked_at: at, revoke_reason })))
    };
    found.map(device).collect()
}

#[cfg(test)]
mod tests {
    use sqlx::Executor;

    use super::super::session::{self, KnownServers, SessionPurpose};
    use super::*;

    fn asked(key: &str, device: Option<&str>) -> LookupQuestion {
        LookupQuestion { key: SecretHash::of_token(key), device: device.map(|device| device.parse().unwrap()) }
    }

    #[test]
    fn questions_are_sorted_by_their_key_and_each_keeps_its_place() {
        let all = [
            asked("a", Some("one")),
            asked("b", None),
            asked("a", None),
            asked("c", Some("one")),
            asked("a", Some("two")),
        ];
        let all: Vec<&LookupQuestion> = all.iter().collect();
        let sorted = Sorted::new(&all).unwrap();
        assert_eq!(sorted.places, [vec![0, 2, 4], vec![1], vec![3]]);
        assert_eq!(sorted.devices, ["one", "two", "one"]);
        assert_eq!(sorted.device_places, [0, 4, 3]);
        assert_eq!((sorted.first, sorted.last), (vec![1, 3, 3], vec![2, 2, 3]));
    }

    /// The lines of the statement's plan that name a table, each with its condition.
    fn scans(plan: &[String]) -> Vec<String> {
        let scan = |(at, line): (usize, &String)| {
            let condition = plan.get(at + 1).map_or("", |next| next.trim());
            line.contains(" Scan ").then(|| format!("{} {condition}", line.trim()))
        };
        plan.iter().enumerate().filter_map(scan).filter(|line| !line.contains("Function Scan")).collect()
    }

    #[tokio::test]
    async fn no_table_is_scanned_even_when_the_plan_was_made_while_all_were_empty() {
        let Some(url) = machineid_testing::postgres::new_database() else { return };
        let options: sqlx::postgres::PgConnectOptions = url.parse().unwrap();
        let pool = sqlx::postgres::PgPoolOptions::new().max_connections(1).connect_with(options.clone()).await.unwrap();
        super::super::schema::migrate(&pool, "here").await.unwrap();
        pool.close().await;
        let known = KnownServers::default();
        let (mut connection, _) = session::open(&options, &known, SessionPurpose::Decisions).await.unwrap();
        let prepare = format!("PREPARE looking (bytea[], int4[], int4[], text[]) AS {LOOK_UP}");
        connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(prepare))).await.unwrap();
        let explain = "EXPLAIN (COSTS OFF) EXECUTE looking ('{}', '{}', '{}', '{}')";
        let plan: Vec<String> = connection
            .fetch_all(sqlx::raw_sql(explain))
            .await
            .unwrap()
            .iter()
            .map(|row| row.try_get(0).unwrap())
            .collect();
        let scans = scans(&plan);
        assert_eq!(scans.len(), 5, "{plan:#?}");
        for scan in &scans {
            let narrow = ["(key_hash = ", "(id = ", "(old_key_hash = ", "(device_id = "];
            assert!(scan.contains("Index Cond: ") && narrow.iter().any(|by| scan.contains(by)), "{scan}\n{plan:#?}");
        }
    }
}
