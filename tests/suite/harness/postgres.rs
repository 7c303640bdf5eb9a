//! A `PostgreSQL` of the tests' own: a cluster in a temporary directory, on a unix socket, ended with the test process.

use std::fs;
use std::io::Write;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// Its only role. Whoever reaches the socket is let in.
const ROLE: &str = "machineid";

/// Starts the server and waits on its standard input: a word stops the server, its end (that of the test process, however
/// it came) stops the server and removes everything.
const KEEPER: &str = r#"
"$1/postgres" -D "$2/data" -k "$2" -c listen_addresses= -c max_connections=200 -c fsync=off >>"$2/log" 2>&1 &
server=$!
word=; read -r word
kill -QUIT $server 2>/dev/null
wait $server
[ -n "$word" ] || rm -rf "$2"
"#;

static CLUSTERS: AtomicU32 = AtomicU32::new(0);
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// A cluster.
pub(crate) struct Cluster {
    programs: PathBuf,
    directory: PathBuf,
    keeper: Option<(Child, ChildStdin)>,
}

/// A new database in the cluster that all tests of this process share; `None`, and loudly, where there is no `PostgreSQL`.
#[allow(dead_code, reason = "each of the two test programs uses its part")]
pub(crate) fn new_database() -> Option<String> {
    static SHARED: OnceLock<Option<Cluster>> = OnceLock::new();
    SHARED.get_or_init(Cluster::start).as_ref().map(Cluster::new_database)
}

impl Cluster {
    /// A new one; `None`, and loudly, where there is no `PostgreSQL`.
    pub(crate) fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            eprintln!("SKIPPED: no PostgreSQL here (initdb and postgres); `apt-get install postgresql` has them");
            return None;
        };
        let mut cluster = Self { programs, directory: new_directory(), keeper: None };
        let made = cluster
            .command("initdb")
            .args(["--username", ROLE, "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "--pgdata"])
            .arg(cluster.directory.join("data"))
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        cluster.launch();
        Some(cluster)
    }

    /// Starts the server, which must not run, and waits until it answers.
    pub(crate) fn launch(&mut self) {
        let mut keeper = as_user(Command::new("sh"))
            .args(["-c", KEEPER, "keeper"])
            .args([&self.programs, &self.directory])
            .stdin(Stdio::piped())
            .current_dir("/")
            .process_group(0)
            .spawn()
            .unwrap();
        let stdin = keeper.stdin.take().unwrap();
        self.keeper = Some((keeper, stdin));
        for _ in 0..600 {
            let ready = self.command("pg_isready").arg("--quiet").arg("--host").arg(&self.directory).status().unwrap();
            if ready.success() {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
        panic!("PostgreSQL does not start: {}", fs::read_to_string(self.directory.join("log")).unwrap_or_default());
    }

    /// Stops the server as a crash does: connections are cut, nothing is flushed.
    #[allow(dead_code, reason = "each of the two test programs uses its part")]
    pub(crate) fn crash(&mut self) {
        let (mut keeper, mut stdin) = self.keeper.take().unwrap();
        stdin.write_all(b"stop\n").unwrap();
        keeper.wait().unwrap();
    }

    /// A hot standby of this one, which follows it over a stream.
    #[allow(dead_code, reason = "each of the two test programs uses its part")]
    pub(crate) fn standby(&self) -> Self {
        let mut standby = Self { programs: self.programs.clone(), directory: new_directory(), keeper: None };
        let copied = standby
            .command("pg_basebackup")
            .args(["--username", ROLE, "--no-sync", "--checkpoint=fast", "--write-recovery-conf", "--host"])
            .arg(&self.directory)
            .arg("--pgdata")
            .arg(standby.directory.join("data"))
            .output()
            .unwrap();
        assert!(copied.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&copied.stderr));
        standby.launch();
        standby
    }

    /// Runs statements in a database and returns what the last one says, a line for each row.
    #[allow(dead_code, reason = "each of the two test programs uses its part")]
    pub(crate) fn sql(&self, database: &str, statements: &str) -> String {
        let said = self
            .command("psql")
            .args([
                "--no-psqlrc",
                "--tuples-only",
                "--no-align",
                "--quiet",
                "--set=ON_ERROR_STOP=1",
                "--username",
                ROLE,
            ])
            .arg("--host")
            .arg(&self.directory)
            .args(["--dbname", database, "--command", statements])
            .output()
            .unwrap();
        assert!(said.status.success(), "{statements}: {}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stdout).unwrap().trim().to_owned()
    }

    /// The directory of its socket.
    #[allow(dead_code, reason = "each of the two test programs uses its part")]
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The address of a new, empty database.
    pub(crate) fn new_database(&self) -> String {
        let name = format!("test{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let created = self
            .command("createdb")
            .arg("--host")
            .arg(&self.directory)
            .args(["--username", ROLE, &name])
            .output()
            .unwrap();
        assert!(created.status.success(), "createdb: {}", String::from_utf8_lossy(&created.stderr));
        format!("postgres://{ROLE}@localhost/{name}?host={}", self.directory.display())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = as_user(Command::new(self.programs.join(program)));
        command.current_dir("/").stdin(Stdio::null());
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some((mut keeper, stdin)) = self.keeper.take() {
            drop(stdin);
            let _ = keeper.wait();
        }
    }
}

/// Of the cluster's own, and of the user it runs as.
fn new_directory() -> PathBuf {
    let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
    // Short: the path of a socket has at most 107 bytes.
    let directory = std::env::temp_dir().join(format!("machineid-pg-{}-{number}", std::process::id()));
    fs::create_dir(&directory).unwrap();
    if let Some(user) = user() {
        chown(&directory, Some(user), Some(user)).unwrap();
    }
    directory
}

/// Where the server's programs are: Debian keeps them out of the path.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut candidates: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    candidates.sort();
    candidates.extend(["/usr/bin", "/usr/local/bin", "/usr/pgsql/bin"].map(PathBuf::from));
    candidates.into_iter().rev().find(|place| {
        ["initdb", "postgres", "createdb", "pg_basebackup", "pg_isready", "psql"]
            .iter()
            .all(|program| Path::new(place).join(program).exists())
    })
}

/// The server refuses to run as root; then it runs as nobody.
pub(crate) fn user() -> Option<u32> {
    rustix::process::geteuid().is_root().then_some(65534)
}

pub(crate) fn as_user(mut command: Command) -> Command {
    if let Some(user) = user() {
        command.uid(user).gid(user);
    }
    command
}
