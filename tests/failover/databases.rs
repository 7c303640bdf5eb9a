//! A primary, a synchronous and an asynchronous standby, and who is what.

use std::path::Path;
use std::time::Duration;

use crate::harness::wait::{until, until_for};
use crate::node::{Node, Role};
use crate::plan::{OldPrimary, Rebuild, Standby};
use crate::proxy::Target;

/// The authorities' role: no superuser, so that limits hold for it.
pub(crate) const ROLE: &str = "authority";
const DATABASE: &str = "machineid";
/// How long the synchronous standby may take to receive what the asynchronous one has, while their primary lives.
const CATCHES_UP: Duration = Duration::from_millis(500);

/// Three servers, by what they are now.
pub(crate) struct Databases {
    pub(crate) primary: Node,
    pub(crate) synchronous: Node,
    pub(crate) asynchronous: Node,
}

impl Databases {
    /// `None` where there is no `PostgreSQL`.
    pub(crate) fn start(below: &Path) -> Option<Self> {
        let mut it = Self {
            primary: Node::empty(below, "a")?,
            synchronous: Node::empty(below, "b")?,
            asynchronous: Node::empty(below, "c")?,
        };
        it.primary.initialise();
        // Not yet: without a standby no commit would end.
        it.primary.configure(&Role::Primary { waits_for: "" });
        it.primary.launch();
        for statement in [format!("CREATE ROLE {ROLE} LOGIN"), format!("CREATE DATABASE {DATABASE} OWNER {ROLE}")] {
            it.primary.sql(&statement).unwrap();
        }
        for standby in [&mut it.synchronous, &mut it.asynchronous] {
            standby.copy(&it.primary);
        }
        it.configure();
        it.synchronous.launch();
        it.asynchronous.launch();
        it.primary.sql("SELECT pg_reload_conf()").unwrap();
        it.wait_for_standbys();
        Some(it)
    }

    /// What `--database` says of a database that this address leads to.
    pub(crate) fn url(address: std::net::SocketAddr) -> String {
        format!("postgres://{ROLE}@{address}/{DATABASE}")
    }

    /// Writes down what each of them is.
    fn configure(&self) {
        let (primary, synchronous, asynchronous) = (&self.primary, &self.synchronous, &self.asynchronous);
        primary.configure(&Role::Primary { waits_for: synchronous.name });
        let of = primary.directory();
        synchronous.configure(&Role::Standby { of, then_waits_for: asynchronous.name });
        asynchronous.configure(&Role::Standby { of, then_waits_for: synchronous.name });
    }

    fn wait_for_standbys(&self) {
        self.primary.wait_for_standbys(self.synchronous.name, self.asynchronous.name);
    }

    pub(crate) fn standby(&self, which: Standby) -> &Node {
        match which {
            Standby::Synchronous => &self.synchronous,
            Standby::Asynchronous => &self.asynchronous,
        }
    }

    /// Where the address of the database should lead.
    pub(crate) fn target(&self) -> Target {
        Target::Unix(self.primary.socket())
    }

    /// The old primary is lost.
    pub(crate) fn lose_primary(&mut self, old: OldPrimary) {
        match old {
            OldPrimary::Crashes => self.primary.stop("QUIT"),
            OldPrimary::IsCutOff | OldPrimary::KeepsItsSessions => {}
            OldPrimary::StandsStill => self.primary.pause(),
        }
    }

    /// The synchronous standby becomes the primary, the asynchronous one follows it as the synchronous one, and the old
    /// primary is left aside: it is what [`Self::asynchronous`] names until it is rebuilt.
    pub(crate) fn promote(&mut self) -> Result<(), String> {
        // An asynchronous standby may be ahead of the synchronous one. It could not follow, and would confirm commits that
        // it does not have: `findings/postgres-standby-ahead.sh`.
        self.asynchronous.stop_following()?;
        let (ahead, behind) = (&self.asynchronous, &self.synchronous);
        let catches_up = until_for(CATCHES_UP, || behind.has_what(ahead).unwrap_or(false).then_some(()));
        // What its first commit waits for was configured when it became the standby.
        self.synchronous.promote()?;
        std::mem::swap(&mut self.primary, &mut self.synchronous);
        std::mem::swap(&mut self.synchronous, &mut self.asynchronous);
        if catches_up.is_none() {
            self.synchronous.stop("INT");
            self.synchronous.copy(&self.primary);
        }
        let of = self.primary.directory();
        self.synchronous.configure(&Role::Standby { of, then_waits_for: self.asynchronous.name });
        if catches_up.is_none() {
            self.synchronous.launch();
            return Ok(());
        }
        self.synchronous.sql("SELECT pg_reload_conf()").map(drop)
    }

    /// The old primary comes back as the asynchronous standby. Gives what was done when it was not what was asked for.
    pub(crate) fn rebuild(&mut self, how: Rebuild) -> Option<String> {
        self.asynchronous.stop("INT");
        let refused = match how {
            Rebuild::Rewound => self.asynchronous.rewind(&self.primary).err(),
            Rebuild::Copied => Some(String::new()),
        };
        if refused.is_some() {
            self.asynchronous.copy(&self.primary);
        }
        self.configure();
        self.asynchronous.launch();
        for node in [&self.primary, &self.synchronous] {
            node.sql("SELECT pg_reload_conf()").unwrap();
        }
        self.wait_for_standbys();
        refused.filter(|why| !why.is_empty())
    }

    /// Makes the authorities' sessions end.
    pub(crate) fn end_sessions(&self) -> Result<(), String> {
        let all = format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{ROLE}'");
        self.primary.sql(&all).map(drop)
    }

    /// How many connections the authorities may have; `None` for any number.
    pub(crate) fn limit_connections(&self, to: Option<u8>) -> Result<(), String> {
        let to = to.map_or(-1, i32::from);
        self.primary.sql(&format!("ALTER ROLE {ROLE} CONNECTION LIMIT {to}")).map(drop)
    }

    /// Waits until the primary answers and both standbys follow it.
    pub(crate) fn wait_until_whole(&self) {
        until("the primary answers", || self.primary.sql("SELECT 1").ok());
        self.wait_for_standbys();
    }

    /// The reasons of all orders in the audit, as the primary has them.
    pub(crate) fn audited(&self) -> Result<Vec<String>, String> {
        let rows = self.primary.sql_in(DATABASE, "SELECT reason FROM audit WHERE reason IS NOT NULL")?;
        Ok(rows.lines().map(str::to_owned).collect())
    }
}
