//! A driver whose attempts panic.

use machineid_blocking::{Bounds, Pool};
use machineid_client::{AuthorityClient, BaseUrl, Options, install_provider};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::config::org_key::KeySource;
use crate::gate::holds::Holds;
use crate::gate::markers::Markers;
use crate::telemetry::Journal;

struct NoAgents;

impl Agents for NoAgents {
    fn lease_moved(&self, _: &DeviceId, _: BootTime) {}
    fn unavailable(&self, _: &DeviceId, _: &Arc<str>) {}
    fn allowed(&self, _: &DeviceId) {}
    fn stop(&self, _: &DeviceId, _: &Denial) {}
}

/// Answers every request with an ALLOW, or as a registration.
async fn serve(listener: TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let mut request = [0; 4096];
            while stream.read(&mut request).await.is_ok_and(|length| length > 0) {
                let body = r#"{"allowed":true,"code":"ALLOW","status":"ok"}"#;
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length";
                let _ = stream.write_all(format!("{head}: {}\r\n\r\n{body}", body.len()).as_bytes()).await;
            }
        });
    }
}

fn keyed_client(url: &str, directory: &std::path::Path) -> KeyedClient {
    install_provider();
    let timeout = Duration::from_secs(3);
    let options = Options {
        base_url: BaseUrl::parse(url, false).unwrap(),
        timeout,
        ca_pem: None,
        user_agent: "test/1".to_owned(),
        authority_user: None,
    };
    let pool = Pool::new("test", Bounds { at_a_time: 1, most: 1 });
    let markers = Markers::open(directory.to_owned(), "boot", url, pool);
    KeyedClient::new(
        AuthorityClient::new(options).unwrap(),
        "org_test".parse().unwrap(),
        KeySource::Environment,
        markers,
    )
}

#[tokio::test]
async fn attempts_that_panic_count_as_failed_and_the_gate_goes_on_validating() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(serve(listener));
    let directory = tempfile::tempdir().unwrap();
    let live = Live::of_defaults();
    let journal = Journal::start(None).unwrap();
    let keyed = keyed_client(&url, directory.path());
    let device: DeviceId = "host:test".parse().unwrap();
    let authority = Arc::new(AuthorityLink::new(keyed, device.clone(), live.clone(), Arc::<Holds>::default(), journal));
    let (mut driver, mut view) = Driver::new(device, &live, First::AtOnce, authority, Arc::new(NoAgents));
    driver.tell(GateEvent::Woke);
    driver.tell(GateEvent::Hinted);
    let begun: Vec<AttemptId> = driver.under_way.keys().copied().collect();
    assert_eq!(begun.len(), 2, "both places are taken");
    for attempt in begun {
        driver.under_way[&attempt].abort();
        driver.begin(attempt, async { panic!("on purpose") });
    }
    let (mailbox, commands) = mpsc::channel(16);
    tokio::spawn(driver.run(commands, BootTimer::new().unwrap()));
    let unavailable = |view: &GateView| matches!(view.standing, Standing::Unavailable { .. });
    let seen = view.wait_for(unavailable).await.unwrap().standing.clone();
    let Standing::Unavailable { cause, .. } = seen else { unreachable!("waited for it") };
    assert!(cause.contains("internal error"), "{cause}");
    let allowed = |view: &GateView| matches!(view.standing, Standing::Allowed { .. });
    let again = tokio::time::timeout(Duration::from_secs(30), view.wait_for(allowed)).await;
    assert!(again.is_ok_and(|view| view.is_ok()), "it validates again");
    drop(mailbox);
}
