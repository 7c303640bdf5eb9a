//! One `PostgreSQL` server in a directory of its own, on a unix socket. It ends with the test process, even if that is
//! killed.

use std::fs;
use std::io::Write;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::Duration;

/// The superuser. Every user that can reach the socket may log in.
pub const ROLE: &str = "machineid";

/// A script that starts the server and waits on its standard input: the name of a signal stops the server by that
/// signal. The end of the input, which comes with the end of the test process, stops the server and removes everything.
const KEEPER: &str = r#"
programs=$1 place=$2; shift 2
"$programs/postgres" -D "$place/data" -k "$place" -c listen_addresses= -c fsync=off "$@" >>"$place/log" 2>&1 &
server=$!
word=; read -r word
kill -"${word:-QUIT}" $server 2>/dev/null
wait $server
[ -n "$word" ] || rm -rf "$place"
"#;

/// A server, running or not.
#[derive(Debug)]
pub struct Server {
    programs: PathBuf,
    directory: PathBuf,
    keeper: Option<(Child, ChildStdin)>,
}

impl Server {
    /// Makes the directory of a server without data. `None` where there is no `PostgreSQL`, with a message.
    pub fn empty(directory: PathBuf) -> Option<Self> {
        let Some(programs) = programs() else {
            eprintln!("SKIPPED: no PostgreSQL here (initdb and postgres); `apt-get install postgresql` has them");
            return None;
        };
        fs::create_dir(&directory).unwrap();
        if let Some(user) = user() {
            chown(&directory, Some(user), Some(user)).unwrap();
        }
        Some(Self { programs, directory, keeper: None })
    }

    /// The socket's directory, with the log and the data.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes an empty data directory.
    pub fn initialise(&self, arguments: &[&str]) {
        let mut command = self.command("initdb");
        command.args(["--username", ROLE, "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]);
        command.args(arguments).arg("--pgdata").arg(self.data());
        succeeds("initdb", &mut command).unwrap();
    }

    /// Makes the data directory a copy of another server's.
    pub fn copy(&self, of: &Self, arguments: &[&str]) {
        let _ = fs::remove_dir_all(self.data());
        let mut command = self.command("pg_basebackup");
        command.args(["--username", ROLE, "--no-sync", "--checkpoint=fast", "--wal-method=stream"]).args(arguments);
        command.arg("--host").arg(&of.directory).arg("--pgdata").arg(self.data());
        succeeds("pg_basebackup", &mut command).unwrap();
    }

    /// Runs statements in a database as the superuser and returns their output, a line for each row.
    pub fn sql(&self, database: &str, statements: &str) -> Result<String, String> {
        let mut command = self.command("psql");
        command.args(["-XAtq", "--set=ON_ERROR_STOP=1", "--username", ROLE, "--host"]).arg(&self.directory);
        // A statement of a test must not wait for another one for ever.
        command.env("PGOPTIONS", "-c statement_timeout=20s").args(["--dbname", database, "--command", statements]);
        succeeds(statements, &mut command)
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Starts the server, which must not run, with these arguments, and waits until it answers.
    pub fn launch(&mut self, arguments: &[&str]) {
        let mut keeper = as_user(Command::new("sh"))
            .args(["-c", KEEPER, "keeper"])
            .args([&self.programs, &self.directory])
            .args(arguments)
            .stdin(Stdio::piped())
            .current_dir("/")
            .process_group(0)
            .spawn()
            .unwrap();
        let stdin = keeper.stdin.take().unwrap();
        self.keeper = Some((keeper, stdin));
        for _ in 0..600 {
            if self.is_ready() {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
        panic!("PostgreSQL does not start: {}", fs::read_to_string(self.directory.join("log")).unwrap_or_default());
    }

    /// Whether the server answers.
    pub fn is_ready(&self) -> bool {
        self.command("pg_isready").arg("--quiet").arg("--host").arg(&self.directory).status().unwrap().success()
    }

    /// Stops the server by this signal, such as `QUIT`, and keeps its data. Does nothing when it does not run.
    pub fn stop(&mut self, signal: &str) {
        let Some((mut keeper, mut stdin)) = self.keeper.take() else { return };
        stdin.write_all(format!("{signal}\n").as_bytes()).unwrap();
        keeper.wait().unwrap();
    }

    /// One of the programs beside the server, as the server's user.
    pub fn command(&self, program: &str) -> Command {
        let mut command = as_user(Command::new(self.programs.join(program)));
        command.current_dir("/").stdin(Stdio::null());
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((mut keeper, stdin)) = self.keeper.take() {
            drop(stdin);
            let _ = keeper.wait();
        }
    }
}

/// The directory of the server's programs, which Debian keeps out of `PATH`.
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

/// The user to run the server as: it refuses to run as root, so root uses the user nobody.
pub fn user() -> Option<u32> {
    rustix::process::geteuid().is_root().then_some(65534)
}

/// The same command, run as the server's user.
pub fn as_user(mut command: Command) -> Command {
    if let Some(user) = user() {
        command.uid(user).gid(user);
    }
    command
}

/// Runs a command to its end and returns its output, or its errors.
pub fn succeeds(what: &str, command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{what}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
