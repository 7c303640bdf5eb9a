//! A `PgBouncer` before a cluster, as Debian's package comes but for the lines that a test gives, and an address that can
//! be made to lead elsewhere.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use machineid_testing::postgres::{Cluster, as_user, user};
use tempfile::TempDir;

use super::wait::until;

const PROGRAM: &str = "/usr/sbin/pgbouncer";

/// The name of a server's socket.
const SOCKET: &str = ".s.PGSQL.5432";

/// A pooler. Killed when dropped.
pub(crate) struct Pooler {
    child: Child,
    directory: TempDir,
}

impl Pooler {
    /// Before this cluster, with these settings; `None`, and loudly, where there is none.
    pub(crate) fn start(cluster: &Cluster, settings: &str) -> Option<Self> {
        if !Path::new(PROGRAM).exists() {
            eprintln!("SKIPPED: no PgBouncer here; `apt-get install pgbouncer` has it");
            return None;
        }
        let directory = TempDir::new().unwrap();
        let place = directory.path().display();
        let host = cluster.directory().display();
        let configuration = format!(
            "[databases]\n* = host={host}\n[pgbouncer]\nlisten_port = 5432\nunix_socket_dir = {place}\n\
             auth_type = any\nauth_file = {place}/users\n{settings}\n"
        );
        // With that authentication all clients are one user to the server.
        let configuration = configuration.replace("[databases]\n* = ", "[databases]\n* = user=machineid ");
        fs::write(directory.path().join("users"), "\"machineid\" \"\"\n").unwrap();
        fs::write(directory.path().join("ini"), configuration).unwrap();
        if let Some(user) = user() {
            chown(directory.path(), Some(user), Some(user)).unwrap();
        }
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let child = as_user(Command::new(PROGRAM))
            .arg(directory.path().join("ini"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .current_dir("/")
            .spawn()
            .unwrap();
        let pooler = Self { child, directory };
        until("the pooler listens", || pooler.directory.path().join(SOCKET).exists().then_some(()));
        Some(pooler)
    }

    /// The address of this database through it.
    pub(crate) fn of(&self, database: &str) -> String {
        address(self.directory.path(), database)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address that leads to one cluster and then to another, as a virtual IP does: connections that there are stay where
/// they are.
pub(crate) struct Moving {
    directory: TempDir,
}

impl Moving {
    pub(crate) fn to(cluster: &Cluster) -> Self {
        let moving = Self { directory: TempDir::new().unwrap() };
        moving.lead_to(cluster);
        moving
    }

    /// Leads new connections there.
    pub(crate) fn lead_to(&self, cluster: &Cluster) {
        let new = self.directory.path().join("new");
        symlink(cluster.directory().join(SOCKET), &new).unwrap();
        fs::rename(&new, self.link()).unwrap();
    }

    /// Leads nowhere.
    pub(crate) fn lead_nowhere(&self) {
        fs::remove_file(self.link()).unwrap();
    }

    /// The address of this database.
    pub(crate) fn of(&self, database: &str) -> String {
        address(self.directory.path(), database)
    }

    fn link(&self) -> PathBuf {
        self.directory.path().join(SOCKET)
    }
}

fn address(directory: &Path, database: &str) -> String {
    format!("postgres://machineid@localhost/{database}?host={}", directory.display())
}
