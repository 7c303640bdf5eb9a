use super::*;
use proptest::prelude::*;
use serde_json::Value;

pub(in crate::registry::ledger) fn here() -> Here {
    Here { boot_id: "boot-1".to_owned(), pid_namespace: "pid:[4026531836]".to_owned() }
}

fn process(pid: i32) -> Identity {
    Identity { pid: Pid::new(pid).unwrap(), start: StartTime(7) }
}

pub(in crate::registry::ledger) fn record() -> RunRecord {
    let id: RunId = "0123456789abcdef0123456789abcdef".parse().unwrap();
    RunRecord {
        id,
        device: "agent:1".parse().unwrap(),
        name: Some("planner".to_owned()),
        command: vec!["python3".to_owned(), "agent.py".to_owned()],
        uid: 1000,
        wrapper: Some(process(100)),
        guardian: Some(Guardian::Sweeper(process(101))),
        leader: process(102),
        alone: true,
        containment: Containment::Cgroup,
        leaf: Some(PathBuf::from(format!("/sys/fs/cgroup/machineid-{id}"))),
        stop_signal: Signal::TERM,
        stop_grace: Duration::from_secs(10),
        token: TokenHash::from_hex(&"0a".repeat(32)),
        code: Code::Allow,
        request_id: RequestId::from_foreign("r-1"),
        started: BootTime::from_millis(5),
        leases: vec![
            ("host:1".parse().unwrap(), BootTime::from_millis(30_000)),
            ("agent:1".parse().unwrap(), BootTime::from_millis(31_000)),
        ],
        stop: Some(BegunStop {
            denial: Denial {
                code: Code::DeviceRevoked,
                request_id: None,
                reason: Some("why".to_owned()),
                revoked_at: None,
            },
            began: BootTime::from_millis(9),
            kill_at: BootTime::from_millis(10_009),
        }),
    }
}

fn edited(edit: impl FnOnce(&mut Value)) -> Result<RunRecord, Unfit> {
    let mut value: Value = serde_json::from_slice(&record().to_text(&here())).unwrap();
    edit(&mut value);
    RunRecord::from_text(value.to_string().as_bytes(), &here())
}

#[test]
fn what_is_written_is_read_back() {
    let whole = record();
    let bare = RunRecord { guardian: None, leaf: None, stop: None, name: None, request_id: None, ..record() };
    let init = RunRecord { guardian: Some(Guardian::Init(process(9))), ..record() };
    for record in [whole, bare, init] {
        assert_eq!(RunRecord::from_text(&record.to_text(&here()), &here()), Ok(record));
    }
}

#[test]
fn another_boot_is_told_from_a_foreign_file() {
    let after = Here { boot_id: "boot-2".to_owned(), ..here() };
    assert_eq!(RunRecord::from_text(&record().to_text(&here()), &after), Err(Unfit::OtherBoot));
    let elsewhere = Here { pid_namespace: "pid:[1]".to_owned(), ..here() };
    assert!(matches!(RunRecord::from_text(&record().to_text(&here()), &elsewhere), Err(Unfit::Foreign(_))));
}

#[test]
fn whatever_is_not_exactly_ours_is_foreign() {
    let edits: [fn(&mut Value); 11] = [
        |value| value["version"] = 2.into(),
        |value| value["surprise"] = 1.into(),
        |value| value["wrapper"]["pid"] = 1.into(),
        |value| value["leader"]["pid"] = 0.into(),
        |value| value["leader"]["pid"] = (-1).into(),
        |value| value["leases"] = Vec::<u64>::new().into(),
        |value| value["leaf"] = "/sys/fs/cgroup/system.slice".into(),
        |value| value["leaf"] = "machineid-0123456789abcdef0123456789abcdef".into(),
        |value| value["stop_signal"] = "NOPE".into(),
        |value| value["guardian"] = Value::Null,
        |value| drop(value.as_object_mut().unwrap().remove("wrapper")),
    ];
    for (at, edit) in edits.into_iter().enumerate() {
        let read = edited(edit);
        assert!(matches!(read, Err(Unfit::Foreign(_))), "edit {at}: {read:?}");
    }
}

proptest! {
    #[test]
    fn a_torn_file_is_never_an_entry(keep in 0_usize..1000) {
        let text = record().to_text(&here());
        let text = text.trim_ascii_end();
        let keep = keep.min(text.len() - 1);
        prop_assert!(matches!(RunRecord::from_text(&text[..keep], &here()), Err(Unfit::Foreign(_))));
    }

    #[test]
    fn garbage_is_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(RunRecord::from_text(&bytes, &here()).is_err());
    }
}
