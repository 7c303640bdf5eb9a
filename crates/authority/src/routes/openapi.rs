//! The parts that descriptions of operations share: schemas made from the types in [`super::wire`], parameters, and
//! answers. [`crate::surface`] makes the whole document.

use std::sync::Arc;

use axum::Extension;
use axum::routing::MethodRouter;
use machineid_openapi::{self as openapi, AnswerDoc, Dialect, EVENTS, JSON, Operation, Parameter};
use machineid_protocol::KeyRole;
use machineid_protocol::report::{FleetPage, Report, StopList, Timeline};
use utoipa::OpenApi;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::schema::{AllOfBuilder, ArrayBuilder, KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use super::wire::{
    ApprovalDone, ApprovalList, ApprovalNamed, AuditPage, BatchRevoked, BatchUnrevoked, Checkout, DecisionBody,
    DeviceDone, DeviceList, DeviceManaged, DeviceNamed, DevicesNamed, ExecutionSwitched, Health, KeyEnded, KeyList,
    KeyMade, KeyNamed, KeyRotation, KeyWanted, Nothing, Numbered, OnlyReason, OrgCreated, PlanWanted, RefusalBody,
    RestoreWaits, RevokeBatch, UnrevokeBatch, Usage,
};

use crate::access::Permission;
use crate::app::App;

#[derive(OpenApi)]
#[openapi(components(schemas(
    ApprovalDone,
    ApprovalList,
    ApprovalNamed,
    ExecutionSwitched,
    OnlyReason,
    RestoreWaits,
    AuditPage,
    BatchRevoked,
    BatchUnrevoked,
    Checkout,
    DecisionBody,
    DeviceDone,
    DeviceList,
    DeviceManaged,
    DeviceNamed,
    DevicesNamed,
    Health,
    KeyEnded,
    KeyList,
    KeyMade,
    KeyNamed,
    KeyRole,
    KeyRotation,
    KeyWanted,
    Nothing,
    Numbered,
    OrgCreated,
    PlanWanted,
    RefusalBody,
    RevokeBatch,
    UnrevokeBatch,
    Usage,
    Report,
    FleetPage,
    StopList,
    Timeline,
)))]
struct Schemas;

const HTML: &str = "text/html; charset=utf-8";
pub(super) const NO: Option<&str> = Some("Refusal");

pub(super) const MALFORMED: AnswerDoc =
    AnswerDoc(400, JSON, NO, "the request is malformed, or names something invalid");
pub(super) const BAD_KEY: AnswerDoc = AnswerDoc(401, JSON, NO, "the key is missing or unknown");
pub(super) const NO_ORG: AnswerDoc = AnswerDoc(404, JSON, NO, "the key is that of a deleted organisation");
pub(super) const LATE: AnswerDoc = AnswerDoc(408, JSON, NO, "the body did not arrive in time");
pub(super) const LIMITED: AnswerDoc = AnswerDoc(429, JSON, NO, "too many requests; Retry-After says when to retry");
pub(super) const UNAVAILABLE: AnswerDoc =
    AnswerDoc(503, JSON, NO, "the store failed; repeating the request is safe, whether or not something was changed");
pub(super) const NO_PLACE: AnswerDoc = AnswerDoc(403, JSON, Some("DeviceDone"), "the plan has no place for it");
pub(super) const NO_DEVICE: AnswerDoc =
    AnswerDoc(404, JSON, NO, "the device does not exist, or its organisation was deleted");
pub(super) const NOT_WRITTEN: AnswerDoc = AnswerDoc(
    202,
    JSON,
    Some("DeviceDone"),
    "in force at this server, and not in the database yet; `notice` says more",
);
pub(super) const DONE: AnswerDoc = AnswerDoc(200, JSON, Some("DeviceDone"), "done, or nothing was left to do");

pub(super) const WAITS: AnswerDoc = AnswerDoc(
    202,
    JSON,
    Some("RestoreWaits"),
    "nothing was done: restores need two keys here, and another one must confirm",
);

/// Parameters of queries and paths. Objects such as `{"scope": …}` are bodies.
pub(super) const DEVICE_STATUS: Parameter = Parameter("query", "status", "Only devices with this status.");
pub(super) const CONTAINING: Parameter = Parameter("query", "q", "Only ids that contain this.");
pub(super) const LIMIT: Parameter = Parameter("query", "limit", "At most this many.");
pub(super) const CURSOR: Parameter =
    Parameter("query", "cursor", "Continue after the page that gave this as nextCursor.");
pub(super) const BEFORE: Parameter =
    Parameter("query", "cursor", "Continue after the page that gave this number as nextCursor.");
pub(super) const ABOUT: Parameter =
    Parameter("query", "device", "Only what is about this device, alone or in a batch that changed it.");
pub(super) const WATCHED: Parameter = Parameter("query", "deviceId", "A device; one parameter for each.");
pub(super) const AMONG: Parameter = Parameter("query", "deviceId", "Only these devices; one parameter for each.");
pub(super) const ONE_DEVICE: Parameter = Parameter("query", "deviceId", "The device.");
pub(super) const SECRET: Parameter =
    Parameter("header", "x-machineid-sidecar", "The secret of the sidecar, whose id is made of it.");
pub(crate) const TOKEN: Parameter = Parameter("path", "token", "The secret in the address.");

/// The shared properties of this API's parameters and answers.
const DIALECT: Dialect = Dialect { parameter, required: &[WATCHED.1], answer: numbered };

fn parameter(Parameter(_, name, about): &Parameter) -> RefOr<Schema> {
    let device = || RefOr::from(Ref::from_schema_name("DeviceText"));
    match *name {
        "status" => Ref::from_schema_name("DeviceStatus").into(),
        "limit" => ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(1_000)).into(),
        "cursor" if *about == BEFORE.2 => ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
            .into(),
        "deviceId" if *about == ONE_DEVICE.2 => device(),
        "cursor" => device(),
        "deviceId" => ArrayBuilder::new().items(device()).min_items(Some(1)).into(),
        _ => openapi::text(),
    }
}

/// Every answer in JSON has a `request_id`.
fn numbered(name: &str) -> RefOr<Schema> {
    AllOfBuilder::new().item(Ref::from_schema_name(name)).item(Ref::from_schema_name("Numbered")).into()
}

/// Under what name a description says which permission a route needs.
pub(crate) const PERMISSION: &str = "x-machineid-permission";

/// Under what name a description says which agents a route stops.
pub(crate) const STOPS: &str = "x-machineid-stops";

/// One way to ask, and what it needs: there is no route without a permission.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) operation: Operation,
    pub(crate) needs: Permission,
    /// Which agents it stops; `None` for none.
    pub(crate) stops: Option<&'static str>,
}

impl Route {
    pub(crate) const fn needing(needs: Permission, operation: Operation) -> Self {
        Self { operation, needs, stops: None }
    }

    pub(crate) const fn stopping(self, stops: &'static str) -> Self {
        Self { stops: Some(stops), ..self }
    }
}

/// A route with its description. Its requests carry the permission that they need, for [`super::ask::caller`]; the ways to
/// ask at one path share one.
pub(crate) fn described(routes: &[&Route], handlers: MethodRouter<Arc<App>>) -> UtoipaMethodRouter<Arc<App>> {
    // Of several the strictest would be needed; a test holds that there are not several.
    let needs = routes.first().map_or(Permission::Administer, |route| route.needs);
    let operations: Vec<&Operation> = routes.iter().map(|route| &route.operation).collect();
    let mut described = openapi::described(&DIALECT, &operations, handlers.layer(Extension(needs)));
    for item in described.1.paths.values_mut() {
        for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
            let stops = routes.iter().find_map(|route| route.stops).unwrap_or("nothing");
            let said = ExtensionsBuilder::new().add(PERMISSION, needs.as_str()).add(STOPS, stops);
            operation.extensions = Some(said.build());
        }
    }
    described
}

/// A router without routes yet.
pub(super) fn surface() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(Schemas::openapi())
}

pub(super) const DECISION: Option<&str> = Some("Decision");
pub(super) const STREAM: AnswerDoc =
    AnswerDoc(200, EVENTS, None, "server-sent events; `ready` is the first, and a comment is a heartbeat");
pub(super) const WATCH: &[AnswerDoc] = &[STREAM, MALFORMED, BAD_KEY, NO_ORG, LATE, LIMITED, UNAVAILABLE];
pub(crate) const PAGE: &[AnswerDoc] = &[
    AnswerDoc(200, HTML, None, "a page"),
    AnswerDoc(400, JSON, NO, "the token is not text"),
    AnswerDoc(410, HTML, None, "used, too old, or never issued"),
    AnswerDoc(503, JSON, NO, "the store failed"),
];
pub(super) const HEALTHY: AnswerDoc = AnswerDoc(200, JSON, Some("Health"), "it is");
