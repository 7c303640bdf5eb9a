use proptest::prelude::*;

use super::*;

const JSON: Head<'_> =
    Head { status: 200, content_type: Some("application/json"), content_encoding: None, age: None, undecided: None };

fn device() -> DeviceId {
    "agent-01".parse().unwrap()
}

fn read_json(body: &str) -> Result<Decision, Unusable> {
    read(&JSON, body.as_bytes(), &device())
}

#[test]
fn the_documented_allow_is_an_allow() {
    let body = r#"{"allowed":true,"code":"ALLOW","request_id":"r-1","deviceId":"agent-01","status":"ok"}"#;
    assert_eq!(read_json(body), Ok(Decision::Allow { code: Code::Allow, request_id: RequestId::from_foreign("r-1") }));
    for content_type in
        ["application/json; charset=utf-8", "Application/JSON;charset=\"UTF-8\"", "application/json; v=1"]
    {
        let head = Head { content_type: Some(content_type), age: Some("0"), ..JSON };
        assert!(matches!(read(&head, body.as_bytes(), &device()), Ok(Decision::Allow { .. })), "{content_type}");
    }
}

#[test]
fn nothing_but_the_exact_form_is_an_allow() {
    for (body, why) in [
        (r#"{"allowed":"true","code":"ALLOW"}"#, Unusable::NoAnswer),
        (r#"{"allowed":1,"code":"ALLOW"}"#, Unusable::NoAnswer),
        (r#"{"allowed":null,"code":"ALLOW"}"#, Unusable::NoAnswer),
        (r#"{"code":"ALLOW"}"#, Unusable::NoAnswer),
        (r#"{"data":{"allowed":true,"code":"ALLOW"}}"#, Unusable::NoAnswer),
        (r#"{"Allowed":true,"code":"ALLOW"}"#, Unusable::NoAnswer),
        (r#"{"allowed":true}"#, Unusable::Contradictory),
        (r#"{"allowed":true,"code":7}"#, Unusable::Contradictory),
        (r#"{"allowed":true,"code":"DEVICE_REVOKED"}"#, Unusable::Contradictory),
        (r#"{"allowed":true,"code":"PLAN_NOT_ACTIVE"}"#, Unusable::Contradictory),
        (r#"{"allowed":true,"code":"LEASE_EXPIRED"}"#, Unusable::Contradictory),
        (r#"{"allowed":true,"code":"ALLOW","deviceId":"agent-02"}"#, Unusable::OtherDevice),
        (r#"{"allowed":true,"code":"ALLOW","deviceId":1}"#, Unusable::OtherDevice),
        (r#"{"allowed":true,"code":"ALLOW","allowed":true}"#, Unusable::Malformed),
        (r#"{"allowed":false,"allowed":true,"code":"ALLOW"}"#, Unusable::Malformed),
        (r#"{"allowed":true,"code":"ALLOW"} "x""#, Unusable::Malformed),
        (r#"{"allowed":true,"code":"ALLOW""#, Unusable::Malformed),
        (r#"[{"allowed":true,"code":"ALLOW"}]"#, Unusable::Malformed),
        ("\u{feff}{\"allowed\":true,\"code\":\"ALLOW\"}", Unusable::Malformed),
        ("", Unusable::Malformed),
    ] {
        assert_eq!(read_json(body), Err(why), "{body}");
    }
}

#[test]
fn the_head_must_fit_too() {
    let body = br#"{"allowed":true,"code":"ALLOW"}"#;
    for (head, why) in [
        (Head { status: 201, ..JSON }, Unusable::Status(201)),
        (Head { status: 204, ..JSON }, Unusable::Status(204)),
        (Head { status: 302, ..JSON }, Unusable::Status(302)),
        (Head { status: 403, ..JSON }, Unusable::Status(403)),
        (Head { status: 503, ..JSON }, Unusable::Status(503)),
        (Head { content_type: None, ..JSON }, Unusable::NotJson),
        (Head { content_type: Some("text/html"), ..JSON }, Unusable::NotJson),
        (Head { content_type: Some("application/json; charset=latin1"), ..JSON }, Unusable::NotJson),
        (Head { content_encoding: Some("gzip"), ..JSON }, Unusable::Encoded),
        (Head { age: Some("1"), ..JSON }, Unusable::Stale),
        (Head { age: Some("x"), ..JSON }, Unusable::Stale),
        (Head { age: Some(""), ..JSON }, Unusable::Stale),
    ] {
        assert_eq!(read(&head, body, &device()), Err(why), "{head:?}");
    }
}

#[test]
fn a_deny_counts_at_any_status_and_from_any_cache() {
    let body = br#"{"allowed":false,"code":"DEVICE_REVOKED","request_id":"r-2","reason":"by\u001b[2J hand"}"#;
    for status in [200, 204, 302, 401, 403, 404, 500, 503] {
        let head = Head { status, age: Some("60"), ..JSON };
        let Ok(Decision::Deny(denial)) = read(&head, body, &device()) else { panic!("{status}") };
        assert_eq!(denial.code, Code::DeviceRevoked);
        assert_eq!(denial.request_id, RequestId::from_foreign("r-2"));
        assert_eq!(denial.reason.as_deref(), Some("by [2J hand"));
    }
}

#[test]
fn a_deny_without_a_usable_code_is_still_a_deny() {
    for body in [r#"{"allowed":false}"#, r#"{"allowed":false,"code":5}"#, r#"{"allowed":false,"code":"ALLOW"}"#] {
        let Ok(Decision::Deny(denial)) = read_json(body) else { panic!("{body}") };
        assert_eq!(denial.code, Code::Unspecified);
    }
}

#[test]
fn a_marked_system_unavailable_is_no_decision_and_the_mark_is_believed_for_nothing_else() {
    let no = |code: &str| format!(r#"{{"allowed":false,"code":"{code}"}}"#);
    let unavailable = no("SYSTEM_UNAVAILABLE");
    let marked = |status, mark| Head { status, undecided: Some(mark), ..JSON };
    for status in [200, 500, 503] {
        let head = marked(status, "1");
        assert_eq!(read(&head, unavailable.as_bytes(), &device()), Err(Unusable::Undecided), "{status}");
    }
    // Without the mark, or with any other value, the code stays the deny that the service documents.
    for head in [JSON, marked(503, "0"), marked(503, ""), marked(503, "true"), marked(503, "?"), marked(503, "11")] {
        let Ok(Decision::Deny(denial)) = read(&head, unavailable.as_bytes(), &device()) else { panic!("{head:?}") };
        assert_eq!(denial.code, Code::SystemUnavailable);
    }
    // A mark beside another code turns no deny into an outage.
    for code in Code::KNOWN.iter().filter(|code| **code != Code::SystemUnavailable) {
        let read = read(&marked(503, "1"), no(code.as_str()).as_bytes(), &device());
        assert!(matches!(read, Ok(Decision::Deny(_))), "{code}: {read:?}");
    }
    for body in [r#"{"allowed":false}"#, r#"{"allowed":false,"code":"system_unavailable"}"#] {
        assert!(matches!(read(&marked(503, "1"), body.as_bytes(), &device()), Ok(Decision::Deny(_))), "{body}");
    }
    // "Allowed" and "no decision" contradict each other, whatever the value of the mark.
    for mark in ["1", "0", "", "?"] {
        for body in [r#"{"allowed":true,"code":"ALLOW"}"#, r#"{"allowed":true,"code":"SYSTEM_UNAVAILABLE"}"#] {
            assert_eq!(read(&marked(200, mark), body.as_bytes(), &device()), Err(Unusable::Contradictory), "{mark}");
        }
    }
}

#[test]
fn unknown_codes_count_by_their_allowed() {
    let new = Code::from("BRAND_NEW");
    assert_eq!(
        read_json(r#"{"allowed":true,"code":"BRAND_NEW"}"#),
        Ok(Decision::Allow { code: new.clone(), request_id: None })
    );
    assert!(
        matches!(read_json(r#"{"allowed":false,"code":"BRAND_NEW"}"#), Ok(Decision::Deny(denial)) if denial.code == new)
    );
}

proptest! {
    #[test]
    fn random_bytes_are_never_an_allow(status in 100_u16..600, body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let head = Head { status, ..JSON };
        let allowed = matches!(read(&head, &body, &device()), Ok(Decision::Allow { .. }));
        prop_assert!(!allowed);
    }

    #[test]
    fn damage_to_an_allow_never_makes_another_allow_of_a_deny(
        position in 0_usize..60,
        byte in any::<u8>(),
    ) {
        let mut body = br#"{"allowed":false,"code":"DEVICE_REVOKED","request_id":"r-3"}"#.to_vec();
        let place = position.min(body.len() - 1);
        body[place] = byte;
        let allowed = matches!(read(&JSON, &body, &device()), Ok(Decision::Allow { .. }));
        prop_assert!(!allowed);
    }

    #[test]
    fn a_truncated_allow_is_no_allow(length in 0_usize..76) {
        let body = br#"{"allowed":true,"code":"ALLOW","request_id":"r-4","deviceId":"agent-01"}"#;
        let length = length.min(body.len() - 1);
        prop_assert!(read(&JSON, &body[..length], &device()).is_err());
    }
}
