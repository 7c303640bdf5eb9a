//! One `PostgreSQL` server of three.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use machineid_testing::postgres::server::{ROLE, Server, succeeds};
use rustix::process::Signal;

use crate::harness::place::is_root;
use crate::harness::process::is_alive;
use crate::harness::wait::{until, until_for};
use crate::harness::wrapper::{children_of, send};

/// Small, so that a server needs a new file of its log often, and a full disk is noticed.
const WAL_SEGMENT: &str = "--wal-segsize=1";
/// The size of its file system, where it has one of its own.
const FILE_SYSTEM: &str = "size=160m";

const SETTINGS: &str = "
include_if_exists = 'failover.conf'
max_connections = 100
shared_buffers = 8MB
wal_level = replica
# For pg_rewind.
wal_log_hints = on
max_wal_senders = 10
hot_standby = on
max_wal_size = 16MB
min_wal_size = 4MB
wal_keep_size = 32MB
# A standby finds its primary again soon. Ten times a second, it sometimes waits ten seconds for a receiver that never starts.
wal_retrieve_retry_interval = 1s
log_line_prefix = '%m [%p] %q%u '
";

/// What a server is to the others.
pub(crate) enum Role<'a> {
    /// The primary, whose commits wait for the standby of this name.
    Primary { waits_for: &'a str },
    /// A standby that follows no server.
    Waiting,
    /// A standby of this server. The name is that of the standby its own commits wait for once it is promoted.
    Standby { of: &'a Path, then_waits_for: &'a str },
}

pub(crate) struct Node {
    pub(crate) name: &'static str,
    server: Server,
    /// The file system of its own.
    disk: Option<PathBuf>,
    paused: Vec<i32>,
}

impl Node {
    /// Without data, below this directory. `None` where there is no `PostgreSQL`.
    pub(crate) fn empty(below: &Path, name: &'static str) -> Option<Self> {
        let disk = is_root().then(|| own_file_system(below, name)).flatten();
        let directory = disk.as_deref().unwrap_or(below).join(name);
        Some(Self { name, server: Server::empty(directory)?, disk, paused: Vec::new() })
    }

    pub(crate) fn directory(&self) -> &Path {
        self.server.directory()
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory().join(".s.PGSQL.5432")
    }

    fn data(&self) -> PathBuf {
        self.server.data()
    }

    /// Makes its data: a new database system.
    pub(crate) fn initialise(&self) {
        self.server.initialise(&[WAL_SEGMENT]);
        let mut settings = File::options().append(true).open(self.data().join("postgresql.conf")).unwrap();
        settings.write_all(SETTINGS.as_bytes()).unwrap();
    }

    /// Makes its data: a copy of that server.
    pub(crate) fn copy(&self, primary: &Self) {
        self.server.copy(&primary.server, &[]);
    }

    /// Makes its data, which went another way, a standby's of that server.
    pub(crate) fn rewind(&self, primary: &Self) -> Result<(), String> {
        // The control file names the new timeline only after a checkpoint.
        primary.sql("CHECKPOINT")?;
        let mut command = self.server.command("pg_rewind");
        command.args(["--no-sync", "--target-pgdata"]).arg(self.data()).arg("--source-server");
        command.arg(format!("host={} user={ROLE} dbname=postgres", primary.directory().display()));
        succeeds("pg_rewind", &mut command).map(drop)
    }

    /// Says what it is. A server that runs must be told to read it.
    pub(crate) fn configure(&self, role: &Role<'_>) {
        let name = self.name;
        let text = match role {
            Role::Primary { waits_for } => format!("synchronous_standby_names = '{waits_for}'\n"),
            Role::Waiting => String::new(),
            Role::Standby { of, then_waits_for } => format!(
                "synchronous_standby_names = '{then_waits_for}'\n\
                 primary_conninfo = 'host={} user={ROLE} application_name={name}'\n",
                of.display()
            ),
        };
        self.write("failover.conf", &text);
        match role {
            Role::Primary { .. } => drop(fs::remove_file(self.data().join("standby.signal"))),
            Role::Waiting | Role::Standby { .. } => self.write("standby.signal", ""),
        }
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.data().join(name);
        fs::write(&path, text).unwrap();
        if is_root() {
            let metadata = fs::metadata(self.directory()).unwrap();
            let owner = std::os::unix::fs::MetadataExt::uid(&metadata);
            chown(&path, Some(owner), Some(owner)).unwrap();
        }
    }

    pub(crate) fn launch(&mut self) {
        self.server.launch(&[]);
    }

    /// Stops it by this signal: `QUIT` is a crash, `INT` is orderly.
    pub(crate) fn stop(&mut self, signal: &str) {
        self.resume();
        self.server.stop(signal);
    }

    pub(crate) fn promote(&self) -> Result<(), String> {
        self.sql("SELECT pg_promote(true, 30)").map(drop)
    }

    /// Makes a standby that runs follow no server.
    pub(crate) fn stop_following(&self) -> Result<(), String> {
        self.configure(&Role::Waiting);
        self.sql("SELECT pg_reload_conf()")?;
        let receivers = "SELECT count(*) FROM pg_stat_wal_receiver";
        until("the standby stops following", || (self.sql(receivers).ok()?.trim() == "0").then_some(()));
        Ok(())
    }

    /// Whether it has as much of the log as that standby.
    pub(crate) fn has_what(&self, other: &Self) -> Result<bool, String> {
        let received = "SELECT GREATEST(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())";
        let theirs = other.sql(received)?;
        Ok(self.sql(&format!("{received} >= '{}'", theirs.trim()))?.trim() == "t")
    }

    /// Runs statements as superuser, each in a transaction of its own, and gives what they print.
    pub(crate) fn sql(&self, statements: &str) -> Result<String, String> {
        self.sql_in("postgres", statements)
    }

    /// The same in this database.
    pub(crate) fn sql_in(&self, database: &str, statements: &str) -> Result<String, String> {
        self.server.sql(database, statements)
    }

    /// Its processes, the first one first. Each backend has a session of its own, so no group holds them all.
    fn processes(&self) -> Vec<i32> {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        let Some(first) = file.lines().next().and_then(|pid| pid.parse().ok()) else { return Vec::new() };
        std::iter::once(first).chain(children_of(first)).filter(|pid| is_alive(*pid)).collect()
    }

    /// All of it stands still.
    pub(crate) fn pause(&mut self) {
        // The first process first: no backend is started meanwhile.
        for _ in 0..2 {
            for pid in self.processes() {
                if !self.paused.contains(&pid) {
                    send(pid, Signal::STOP);
                    self.paused.push(pid);
                }
            }
        }
    }

    pub(crate) fn resume(&mut self) {
        for pid in self.paused.drain(..).rev().filter(|pid| is_alive(*pid)) {
            send(pid, Signal::CONT);
        }
    }

    /// Kills a backend of this role, as the kernel does when memory is short.
    pub(crate) fn kill_a_backend(&self, role: &str) -> Result<(), String> {
        let pid = self.sql(&format!("SELECT pid FROM pg_stat_activity WHERE usename = '{role}' LIMIT 1"))?;
        let pid: i32 = pid.trim().parse().map_err(|_| format!("no backend of {role}"))?;
        send(pid, Signal::KILL);
        Ok(())
    }

    /// Whether its disk can be filled.
    pub(crate) fn has_a_disk(&self) -> bool {
        self.disk.is_some()
    }

    /// Fills its file system to the last byte.
    pub(crate) fn fill_disk(&self) {
        let Some(disk) = &self.disk else { return };
        let mut file = File::create(disk.join("filling")).unwrap();
        let (block, byte) = (vec![0; 1 << 16], [0]);
        while file.write_all(&block).is_ok() {}
        while file.write_all(&byte).is_ok() {}
    }

    pub(crate) fn empty_disk(&mut self) {
        if let Some(disk) = &self.disk {
            let _ = fs::remove_file(disk.join("filling"));
        }
        // It may have given up, or be about to.
        let answers = || self.sql("SELECT 1").ok();
        if until_for(std::time::Duration::from_secs(2), answers).is_none() {
            self.stop("QUIT");
            self.launch();
        }
    }

    /// Waits until that standby follows it, and the synchronous one is confirmed to be.
    pub(crate) fn wait_for_standbys(&self, synchronous: &str, asynchronous: &str) {
        let states = "SELECT string_agg(application_name || ' ' || state || ' ' || sync_state, ',' ORDER BY \
                      application_name) FROM pg_stat_replication WHERE application_name IN ('a', 'b', 'c')";
        let mut wanted = [format!("{synchronous} streaming sync"), format!("{asynchronous} streaming async")];
        wanted.sort();
        let wanted = wanted.join(",");
        until(&format!("{wanted} at {}", self.name), || (self.sql(states).ok()?.trim() == wanted).then_some(()));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop("QUIT");
        let _ = fs::remove_dir_all(self.directory());
        if let Some(disk) = self.disk.take() {
            let _ = Command::new("umount").arg(&disk).status();
        }
    }
}

/// A small file system in memory. `None`, and loudly, where none can be mounted.
fn own_file_system(below: &Path, name: &str) -> Option<PathBuf> {
    let at = below.join(format!("disk-{name}"));
    fs::create_dir(&at).unwrap();
    fs::set_permissions(&at, fs::Permissions::from_mode(0o755)).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", FILE_SYSTEM, "none"]).arg(&at).status();
    mounted.is_ok_and(|status| status.success()).then_some(at)
}
