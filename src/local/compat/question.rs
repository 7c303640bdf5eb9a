//! `{"deviceId": …}`, read as leniently as the authority reads it.

use axum::body::Body;
use machineid_protocol::DeviceId;
use serde::Deserialize;

use crate::local::read_whole;

/// The device a request is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Named {
    Device(DeviceId),
    /// There is one, and it can be none.
    Invalid,
    /// The request is torn, late, too long, no JSON, or names none.
    Missing,
}

/// Other fields are a newer client's, and ignored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeviceQuestion {
    device_id: serde_json::Value,
}

/// Reads the body, within a limit of size and of time.
pub(super) async fn read(body: Body) -> Named {
    read_whole(body).await.map_or(Named::Missing, |bytes| parse(&bytes))
}

fn parse(bytes: &[u8]) -> Named {
    match serde_json::from_slice::<DeviceQuestion>(bytes) {
        Ok(DeviceQuestion { device_id: serde_json::Value::String(text) }) => {
            text.trim().parse().map_or(Named::Invalid, Named::Device)
        }
        Ok(DeviceQuestion { device_id: serde_json::Value::Null }) | Err(_) => Named::Missing,
        Ok(_) => Named::Invalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_is_read_as_the_official_clients_send_it() {
        assert_eq!(parse(br#"{"deviceId":"  agent:a "}"#), Named::Device("agent:a".parse().unwrap()));
        assert_eq!(parse(br#"{"deviceId":"a","newer":1}"#), Named::Device("a".parse().unwrap()));
        for text in [&b""[..], b"{}", b"[]", br#"{"deviceId":null}"#, br#"{"deviceId":"a""#] {
            assert_eq!(parse(text), Named::Missing);
        }
        for text in [&br#"{"deviceId":"not valid"}"#[..], br#"{"deviceId":7}"#, br#"{"deviceId":""}"#] {
            assert_eq!(parse(text), Named::Invalid);
        }
    }
}
