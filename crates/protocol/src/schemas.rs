//! Schemas of the types that are sent as text, for the descriptions of the APIs.

use crate::report::{EventId, SidecarId};
use crate::{Code, DeviceId, RequestId, RunId, Wish};

/// Gives types that are sent as text a schema with a description and a pattern.
macro_rules! texts {
    ($($type:ident: $about:literal, $pattern:expr;)*) => {
        $(
            impl utoipa::PartialSchema for $type {
                fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                    utoipa::openapi::ObjectBuilder::new()
                        .schema_type(utoipa::openapi::Type::String)
                        .description(Some($about))
                        .pattern(Some($pattern))
                        .into()
                }
            }

            impl utoipa::ToSchema for $type {}
        )*
    };
}

texts! {
    Code:
        "Why the answer is yes or no: a code of the authority's, such as ALLOW or DEVICE_REVOKED, or of this host's.",
        "^[!-~]+$";
    DeviceId:
        "A device's id: 1 to 128 characters, the first a letter or a digit.",
        "^[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127}$";
    RequestId: "The authority's id of one answer.", "^[!-~]{1,128}$";
    RunId: "One supervised start of an agent: 32 hex digits.", "^[0-9a-f]{32}$";
    Wish: "The containment of a process tree: auto, cgroup, pidns or subreaper.", "^(auto|cgroup|pidns|subreaper)$";
    SidecarId: "The id of a sidecar: 32 hex digits, the same until its host boots again.", "^[0-9a-f]{32}$";
    EventId: "The start of the sidecar, and the event's number since that start.", "^[0-9a-f]{8}-[0-9]{1,19}$";
}
