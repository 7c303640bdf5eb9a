//! What a wrapper asks for: parsed, checked, capped.

use machineid_protocol::local::SuperviseRequest;
use machineid_protocol::{Code, DeviceId, span};
use machineid_sys as sys;
use machineid_tree::PidNamespaces;

use super::StartRefusal;
use super::containment_rules::WantedContainment;
use super::reach::reach;
use crate::config::settings::UndecidedPolicy;
use crate::local::Context;
use crate::local::peer::Peer;
use crate::registry::{AskedTerms, Opened};

/// The longest name and command line that are kept, in bytes: both are for people.
const LONGEST_NAME: usize = 256;
const LONGEST_COMMAND: usize = 4096;

/// A request that passed the checks.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) device: DeviceId,
    pub(super) asked: AskedTerms,
    pub(super) text: SuperviseRequest,
}

/// Checks the request itself, without looking at any process.
pub(super) fn checked(context: &Context, peer: &Peer, text: SuperviseRequest) -> Result<Request, StartRefusal> {
    let host = context.gates.host().device();
    let device = text.device.clone().unwrap_or_else(|| host.clone());
    if !context.may_name(peer, &device) {
        let reason = format!("this host's configuration (device.allow) does not let agents run as {device}");
        return Err(StartRefusal { device: Some(device), ..StartRefusal::new(Code::DeviceNotPermitted, reason) });
    }
    if peer.is_unmapped_user() {
        return Err(StartRefusal::new(Code::PidNotPermitted, "a user of another user namespace may only check"));
    }
    let grace = text.stop_grace.as_deref().map(span::parse).transpose();
    let grace = grace.map_err(|error| StartRefusal::new(Code::BadRequest, format!("stop_grace: {error}")))?;
    let signal = text.stop_signal.as_deref().map(sys::parse_signal).transpose();
    let signal = signal.map_err(|error| StartRefusal::new(Code::BadRequest, format!("stop_signal: {error}")))?;
    Ok(Request { device, asked: AskedTerms { signal, grace }, text })
}

impl Request {
    /// Identifies the processes; returns the run to add, and the containment to look for.
    pub(super) fn open(self, context: &Context, peer: &Peer) -> Result<(Opened, WantedContainment), StartRefusal> {
        let reach = reach(peer, &self.text)?;
        let settings = context.settings();
        if reach.is_none() && settings.local.require_local_killer {
            let reason = "the daemon cannot end this agent by itself (another PID namespace or user), and \
                          local.require_local_killer is set";
            return Err(StartRefusal::new(Code::RemoteRefused, reason));
        }
        let identity = match &reach {
            Some(reach) => Some(reach.leader.identity),
            None => peer.identity().ok().flatten(),
        };
        let wanted = WantedContainment {
            wish: self.text.containment.unwrap_or_default(),
            floor: settings.enforcement.containment,
            freezable: settings.enforcement.undecided == UndecidedPolicy::Freeze,
        };
        let opened = Opened {
            id: self.text.run_id,
            device: self.device,
            name: self.text.name.map(|name| name_for_people(&name)),
            command: command_for_people(&self.text.command),
            uid: peer.uid(),
            namespaces: identity.map(PidNamespaces::of).unwrap_or_default(),
            asked: self.asked,
            reach,
        };
        Ok((opened, wanted))
    }
}

/// Fuzz target: what is kept of a foreign request is short and printable.
pub(crate) fn fuzz(data: &[u8]) {
    let Ok(request) = serde_json::from_slice::<SuperviseRequest>(data) else { return };
    let command = command_for_people(&request.command);
    assert!(command.iter().map(String::len).sum::<usize>() <= LONGEST_COMMAND);
    let name = printable(request.name.as_deref().unwrap_or_default(), LONGEST_NAME);
    assert!(name.len() <= LONGEST_NAME);
    assert!(command.iter().chain([&name]).all(|text| !text.chars().any(char::is_control)), "{command:?} {name:?}");
    let _ = (request.stop_grace.as_deref().map(span::parse), request.stop_signal.as_deref().map(sys::parse_signal));
    let again = serde_json::to_vec(&request).expect("it can be written");
    assert_eq!(serde_json::from_slice::<SuperviseRequest>(&again).ok(), Some(request));
}

/// A name as it is kept and shown.
pub(super) fn name_for_people(name: &str) -> String {
    printable(name, LONGEST_NAME)
}

/// A command line as it is kept and shown.
pub(super) fn command_for_people(command: &[String]) -> Vec<String> {
    let mut left = LONGEST_COMMAND;
    let mut kept = Vec::new();
    for argument in command {
        if left == 0 {
            break;
        }
        let argument = printable(argument, left);
        left = left.saturating_sub(argument.len() + 1);
        kept.push(argument);
    }
    kept
}

fn printable(text: &str, longest: usize) -> String {
    let mut kept = String::new();
    for c in machineid_protocol::printable::printable(text, ' ') {
        if kept.len() + c.len_utf8() > longest {
            break;
        }
        kept.push(c);
    }
    kept
}
