//! An authority inside another program: what `machineid-sidecar --dev` enforces against.

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use machineid_clock::wall_now;
use machineid_org_key::OrgKey;
use machineid_protocol::KeyRole;
use uuid::Uuid;

use super::admin::create_org;
use super::audit::{Actor, Call};
use super::database::Database;
use super::forwarded::Trusted;
use super::limits::Rates;
use super::listen::ListenAddress;
use super::org::{OrgId, PlanTier};
use super::retention::Retention;
use super::role_keys::{self, KeyAuthor, WantedKey};
use super::serve::{Running, ServerOptions};
use super::store::{Demand, Reserves, Store, Terms};
use super::{admin_socket_of, reserve_file_of};

/// Why an embedded authority could not start.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// The address is not on loopback: the embedded authority speaks HTTP without TLS, so it may only listen there.
    #[error("the embedded authority listens on loopback only, and {0} is not")]
    NotLoopback(SocketAddr),
    /// The listener, the admin socket or the database could not be opened; the text says which, and what to do.
    #[error(transparent)]
    Start(Box<dyn Error + Send + Sync>),
    /// The authority started, but could not create its organisation.
    #[error("the embedded authority could not create its organisation: {0}")]
    Organisation(#[source] Box<dyn Error + Send + Sync>),
}

/// A running authority with one new organisation. [`Embedded::end`] ends it in order; when dropped, it ends with the
/// runtime.
#[derive(Debug)]
pub struct Embedded {
    /// The base URL, `http://ADDRESS:PORT`.
    pub url: String,
    /// The organisation.
    pub org_id: OrgId,
    /// The organisation's own key, of the role `admin`.
    pub org_key: OrgKey,
    /// A key of the role `host`, for the daemon.
    pub host_key: OrgKey,
    /// The database file: the argument of `machineid-authority org … --database sqlite:PATH`.
    pub database: PathBuf,
    running: Running,
}

impl Embedded {
    /// The name of the database in the directory given to [`Embedded::start`].
    pub const DATABASE: &'static str = "authority.db";

    /// Starts an authority inside the current runtime, on `listen` (loopback; port 0 takes a free port), with its
    /// database and admin socket in `directory`, which must exist, and a new organisation called `name` on the plan
    /// `plan`.
    ///
    /// An existing database is used, with its organisations.
    pub async fn start(
        listen: SocketAddr,
        directory: &Path,
        name: &str,
        plan: PlanTier,
    ) -> Result<Self, EmbeddedError> {
        if !listen.ip().is_loopback() {
            return Err(EmbeddedError::NotLoopback(listen));
        }
        let database = directory.join(Self::DATABASE);
        let options = ServerOptions {
            listen: vec![ListenAddress::Tcp(listen)],
            admin_socket: admin_socket_of(&database),
            database: Database::Sqlite(database.clone()),
            terms: Terms::default(),
            sign_up: true,
            reserves: Reserves { space: 0, file: Some(reserve_file_of(&database)) },
            public_url: None,
            metrics: None,
            tls: None,
            allowed_hosts: Vec::new(),
            trusted: Trusted::default(),
            // No limits: the server is on loopback, for one user.
            rates: Rates { failed_keys: None, sign_ups: None, management: None },
            demand: Demand::Nothing,
            log_validations: false,
            ephemeral_after: None,
            retention: Retention::default(),
            connections: None,
        };
        let running = Running::start(options, Vec::new()).await.map_err(|error| EmbeddedError::Start(error.into()))?;
        let request_id = Uuid::new_v4().hyphenated().to_string();
        let call = Call { at: wall_now(), request_id, actor: Actor::Server, reason: None };
        match organisation(running.store(), name, plan, &call).await {
            Ok((org_id, org_key, host_key)) => {
                let address = running.addresses().first().map_or_else(|| listen.to_string(), ToString::to_string);
                let url = format!("http://{address}");
                Ok(Self { url, org_id, org_key, host_key, database, running })
            }
            Err(error) => {
                running.end().await;
                Err(EmbeddedError::Organisation(error))
            }
        }
    }

    /// Ends the authority: requests under way finish, everything is written, the admin socket is removed. Takes at most
    /// 5 s.
    pub async fn end(self) {
        self.running.end().await;
    }
}

/// A new organisation, its own key, and one for a host.
async fn organisation(
    store: &Store,
    name: &str,
    plan: PlanTier,
    call: &Call,
) -> Result<(OrgId, OrgKey, OrgKey), Box<dyn Error + Send + Sync>> {
    let (org, org_key) = create_org(store, Some(name.to_owned()), plan, None, call).await?;
    let wanted = WantedKey { role: KeyRole::Host, devices: None, name: Some("host".parse()?), expires: None };
    let made = role_keys::create(store, org.id, wanted, KeyAuthor::Operator, call).await?;
    Ok((org.id, org_key, made.key))
}
