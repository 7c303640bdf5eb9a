//! How a connection to the authority comes about: by its name, by way of the proxy that the environment names, encrypted.

use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Uri, header};
use hyper::rt::{Read, Write};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use rustls::ClientConfig;
use tower_service::Service;

use super::Connection;
pub(in crate::client) use super::names::NoAddress;
use super::names::Resolver;

pub(in crate::client) type BoxError = Box<dyn Error + Send + Sync>;

/// Encrypted when the address says so.
type Near = HttpsConnector<HttpConnector<Resolver>>;

/// A peer that is silent for this long is asked whether it is still there, and after as many more of them is not.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_RETRIES: u32 = 3;
/// How long what was sent may remain without an acknowledgement.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// Makes connections to one authority.
pub(in crate::client) struct Connector {
    authority: Uri,
    way: Way,
}

enum Way {
    Direct(Near),
    /// To a proxy that passes each request on.
    Forwarded {
        near: Near,
        proxy: Uri,
        authorization: Option<HeaderValue>,
    },
    /// Through a proxy that passes bytes on, and reads none of them.
    Tunnelled(HttpsConnector<Tunnel<Near>>),
}

impl Connector {
    /// Makes one for the authority at this address, which has a scheme and a host. `timeout` is divided among the addresses
    /// of a name, those of each family apart.
    pub(in crate::client) fn new(
        authority: Uri,
        proxies: Option<&Matcher>,
        user_agent: &HeaderValue,
        tls: ClientConfig,
        timeout: Duration,
    ) -> Self {
        let tls = Arc::new(tls);
        let mut tcp = HttpConnector::new_with_resolver(Resolver::new());
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(timeout));
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE));
        tcp.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
        tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        let near = HttpsConnector::from((tcp, Arc::clone(&tls)));
        let way = match proxies.and_then(|proxies| proxies.intercept(&authority)) {
            None => Way::Direct(near),
            Some(proxy) if authority.scheme_str() == Some("https") => {
                let told = HeaderMap::from_iter([(header::USER_AGENT, user_agent.clone())]);
                let mut tunnel = Tunnel::new(proxy.uri().clone(), near).with_headers(told);
                if let Some(authorization) = authorization(&proxy) {
                    tunnel = tunnel.with_auth(authorization);
                }
                Way::Tunnelled(HttpsConnector::from((tunnel, tls)))
            }
            Some(proxy) => Way::Forwarded { near, proxy: proxy.uri().clone(), authorization: authorization(&proxy) },
        };
        Self { authority, way }
    }

    /// Whether each request must name its scheme and host in its first line.
    pub(in crate::client) const fn is_forwarded(&self) -> bool {
        matches!(self.way, Way::Forwarded { .. })
    }

    /// What each request says to the proxy that passes it on.
    pub(in crate::client) const fn authorization(&self) -> Option<&HeaderValue> {
        match &self.way {
            Way::Forwarded { authorization, .. } => authorization.as_ref(),
            Way::Direct(_) | Way::Tunnelled(_) => None,
        }
    }

    pub(in crate::client) async fn connect(&self) -> Result<Connection, BoxError> {
        match &self.way {
            Way::Direct(near) => reach(near.clone(), &self.authority).await,
            Way::Forwarded { near, proxy, .. } => reach(near.clone(), proxy).await,
            Way::Tunnelled(tunnel) => reach(tunnel.clone(), &self.authority).await,
        }
    }
}

impl fmt::Debug for Connector {
    /// Without the proxy, whose address may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("authority", &self.authority).finish_non_exhaustive()
    }
}

async fn reach<C>(mut connector: C, to: &Uri) -> Result<Connection, BoxError>
where
    C: Service<Uri>,
    C::Response: Read + Write + Send + Unpin + 'static,
    C::Error: Into<BoxError>,
{
    poll_fn(|context| connector.poll_ready(context)).await.map_err(Into::into)?;
    let stream = connector.call(to.clone()).await.map_err(Into::into)?;
    Ok(Connection::over(stream).await?)
}

fn authorization(proxy: &Intercept) -> Option<HeaderValue> {
    let mut value = proxy.basic_auth()?.clone();
    value.set_sensitive(true);
    Some(value)
}
