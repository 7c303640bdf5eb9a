//! Continue's `cn`. It calls no hook.

use super::{Form, Guard, Kind, plugin};

pub(super) const FORM: Form = Form {
    name: "cn",
    title: "Continue (cn)",
    tried: Some("1.5.47"),
    program: "cn",
    oldest: None,
    guard: Guard::Caller,
    kind: Kind::Unsupported(
        "cn 1.5.47 called no hook before a tool call, so nothing can be put there; run it under machineid-run",
    ),
    layers: &[],
    switches: &[],
    variables: &[],
    trust: None,
    try_plugin: None,
    event: "",
    note: |_| "",
    answer: plugin::answer,
    is_no: plugin::is_no,
};
