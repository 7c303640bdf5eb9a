//! A `PostgreSQL` cluster for tests, in a temporary directory, on a unix socket. It ends with the test process.

pub mod server;

use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use server::{ROLE, Server};
pub use server::{as_user, user};

static CLUSTERS: AtomicU32 = AtomicU32::new(0);
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// A cluster.
#[derive(Debug)]
pub struct Cluster {
    server: Server,
}

/// Makes a new database in the cluster that all tests of this process share. `None` where there is no `PostgreSQL`,
/// with a message.
pub fn new_database() -> Option<String> {
    static SHARED: OnceLock<Option<Cluster>> = OnceLock::new();
    SHARED.get_or_init(Cluster::start).as_ref().map(Cluster::new_database)
}

impl Cluster {
    /// Makes a new cluster. `None` where there is no `PostgreSQL`, with a message.
    pub fn start() -> Option<Self> {
        let mut cluster = Self::empty()?;
        cluster.server.initialise(&[]);
        cluster.launch();
        Some(cluster)
    }

    fn empty() -> Option<Self> {
        let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        // Short: the path of a socket has at most 107 bytes.
        let directory = std::env::temp_dir().join(format!("machineid-pg-{}-{number}", std::process::id()));
        Server::empty(directory).map(|server| Self { server })
    }

    /// Starts the server, which must not run, and waits until it answers.
    pub fn launch(&mut self) {
        self.server.launch(&["-c", "max_connections=200"]);
    }

    /// Stops the server as a crash does: connections are cut, nothing is flushed.
    pub fn crash(&mut self) {
        self.server.stop("QUIT");
    }

    /// Makes a hot standby of this cluster, which follows it over a stream.
    pub fn standby(&self) -> Self {
        let mut standby = Self::empty().unwrap();
        standby.server.copy(&self.server, &["--write-recovery-conf"]);
        standby.launch();
        standby
    }

    /// Runs statements in a database and returns the rows of the last one, each on a line.
    pub fn sql(&self, database: &str, statements: &str) -> String {
        self.server.sql(database, statements).unwrap().trim().to_owned()
    }

    /// The directory of the server's socket.
    pub fn directory(&self) -> &Path {
        self.server.directory()
    }

    /// Makes a new, empty database and returns its URL.
    pub fn new_database(&self) -> String {
        let name = format!("test{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let mut create = self.server.command("createdb");
        create.arg("--host").arg(self.server.directory()).args(["--username", ROLE, &name]);
        server::succeeds("createdb", &mut create).unwrap();
        format!("postgres://{ROLE}@localhost/{name}?host={}", self.server.directory().display())
    }
}
