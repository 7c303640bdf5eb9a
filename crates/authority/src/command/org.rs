//! `machineid-authority org …`: asks the running server, prints what it says.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use machineid_protocol::{Exit, span};
use serde::Serialize;

use super::keys::{self, Keys};
use super::{complain, socket};
use crate::admin::{
    AdminCall, AdminReply, AdminRequest, AuditReport, CheckoutReport, Expiry, NewOrgKey, OrgReport, ask,
};
use crate::audit::CallReason;
use crate::database::Database;
use crate::health::Problem;
use crate::org::{OrgId, PlanTier, Switch, SwitchedOff, org_name};

#[derive(Debug, Args)]
#[expect(clippy::doc_markdown, reason = "these are help texts, in which backticks would show")]
pub(super) struct Org {
    /// The running server's admin socket
    #[arg(long, global = true, value_name = "PATH")]
    admin_socket: Option<PathBuf>,
    /// The running server's SQLite database, beside which its admin socket is unless it was put elsewhere
    #[arg(long, global = true, value_name = "sqlite:PATH", conflicts_with = "admin_socket")]
    database: Option<Database>,
    /// The reason, for the audit: one line of up to 200 characters
    #[arg(long, global = true, value_name = "TEXT")]
    reason: Option<CallReason>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: OrgVerb,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::doc_markdown, reason = "these are help texts, in which backticks would show")]
enum OrgVerb {
    /// Add an organisation and show its key, once
    Create {
        /// A name for people
        #[arg(long, value_parser = org_name)]
        name: Option<String>,
        /// The plan
        #[arg(long, value_enum, default_value_t = PlanTier::Free)]
        plan: PlanTier,
        /// A limit of active devices instead of the plan's
        #[arg(long, value_name = "DEVICES")]
        limit: Option<u64>,
    },
    /// List every organisation
    List,
    /// Show one organisation
    Show {
        /// The organisation's id
        org: OrgId,
    },
    /// Deny execution to all its devices (ORG_DISABLED)
    Disable {
        /// The organisation's id
        org: OrgId,
    },
    /// Undo `disable`
    Enable {
        /// The organisation's id
        org: OrgId,
        /// Take back the organisation's own switch too, which otherwise one of its admin keys takes back in the console
        #[arg(long)]
        own: bool,
    },
    /// Freeze its plan (PLAN_FROZEN)
    Freeze {
        /// The organisation's id
        org: OrgId,
    },
    /// Undo `freeze`
    Unfreeze {
        /// The organisation's id
        org: OrgId,
    },
    /// End its entitlement (ENTITLEMENT_EXPIRED)
    Expire {
        /// The organisation's id
        org: OrgId,
        /// When, as in 2027-01-31T00:00:00Z [default: now]
        #[arg(long, value_name = "RFC3339")]
        at: Option<Timestamp>,
        /// Remove the end: undoes `expire`
        #[arg(long, conflicts_with = "at")]
        never: bool,
    },
    /// Change its plan; active devices stay active, even above the new limit
    SetPlan {
        /// The organisation's id
        org: OrgId,
        /// The plan
        #[arg(value_enum)]
        plan: PlanTier,
        /// A limit of active devices instead of the plan's [default: the plan's]
        #[arg(long, value_name = "DEVICES")]
        limit: Option<u64>,
    },
    /// Require one key or two for what gives back what a stop took
    Set {
        /// The organisation's id
        org: OrgId,
        /// How many keys a restore needs. With 2, what unrevokes, removes a revoked device, switches execution on or makes a
        /// key that may restore waits until a second key of the role operate or admin confirms it (`machineid approve`);
        /// execution and keys need a second one of the role admin. Warns when there are not enough keys. With 1 again, what
        /// waits is void
        #[arg(long, value_name = "1|2", value_parser = clap::value_parser!(u8).range(1..=2))]
        restore_needs: u8,
    },
    /// List the plan changes that wait for confirmation
    Checkouts,
    /// Confirm a plan change
    ConfirmCheckout {
        /// The checkout's number, as `org checkouts` and its page show it
        number: String,
        /// Confirm nothing yet: print an address where a browser confirms it, once
        #[arg(long)]
        link: bool,
    },
    /// Create a new key and show it, once; the old one stays valid for a while
    RotateKey {
        /// The organisation's id
        org: OrgId,
        /// How long the old key stays valid beside the new one; 0s ends it at once, as for a key that was stolen. There are
        /// never more than two: a second rotation ends the oldest at once
        #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = span::parse)]
        overlap: Duration,
        /// Rotate again although devices still use the key before the current one, which ends then
        #[arg(long)]
        yes: bool,
    },
    /// End the old key now, early: nothing should use it any more (see `show`)
    EndOldKey {
        /// The organisation's id
        org: OrgId,
    },
    /// Keys with roles: for hosts, for stopping, for reading, for operators
    Key(Keys),
    /// Delete it and its devices (ORG_NOT_FOUND); cannot be undone
    Delete {
        /// The organisation's id
        org: OrgId,
        /// Really
        #[arg(long)]
        yes: bool,
    },
    /// Show who changed what, when and why, the newest first
    Audit {
        /// Only this organisation's changes
        org: Option<OrgId>,
        /// Only changes of this device
        #[arg(long, value_name = "ID")]
        device: Option<String>,
        /// Show at most this many
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Only changes with a lower number than this
        #[arg(long, value_name = "NUMBER")]
        before: Option<i64>,
    },
}

impl Org {
    pub(super) fn run(self) -> Exit {
        let Some(socket) = socket(self.admin_socket, self.database) else { return Exit::Usage };
        if let OrgVerb::Delete { org, yes: false } = &self.verb
            && !confirmed(*org)
        {
            complain(format_args!("organisation {org} was not deleted; --yes deletes it without asking"));
            return Exit::Usage;
        }
        let listed = matches!(self.verb, OrgVerb::List);
        let key_file = if let OrgVerb::Key(keys) = &self.verb { keys.key_file().map(Path::to_owned) } else { None };
        if let Some(path) = &key_file {
            let problem = if self.json {
                Some("--key-file and --json: say one of them".to_owned())
            } else {
                keys::can_be_made(path).err().map(|error| error.to_string())
            };
            if let Some(problem) = problem {
                complain(problem);
                return Exit::Usage;
            }
        }
        let answer = ask(&socket, &AdminCall { request: self.verb.into_request(), reason: self.reason });
        if listed && answer.is_ok() {
            warn_of_problems(&socket);
        }
        match answer {
            Err(error) => {
                complain(error);
                Exit::Failure
            }
            Ok(AdminReply::Failed(problem)) => {
                complain(problem);
                Exit::Failure
            }
            Ok(AdminReply::Key(new)) => {
                warn_of(new.notice.as_deref());
                print(self.json, &new, key_text)
            }
            Ok(AdminReply::RoleKey(new)) if self.json => print(true, &new, keys::described),
            Ok(AdminReply::RoleKey(new)) => keys::shown(&new, key_file.as_deref()),
            Ok(AdminReply::Keys(all)) => print(self.json, &all, |all| keys::table(all)),
            Ok(AdminReply::KeyEnded(ended)) => {
                print(self.json, &ended, |ended| format!("Invalid now: {}", ended.join(", ")))
            }
            Ok(AdminReply::KeyEndedUnwritten { fingerprints, notice }) => {
                warn_of(Some(&notice));
                print(self.json, &fingerprints, |ended| format!("Invalid now: {}", ended.join(", ")))
            }
            Ok(AdminReply::Org(org)) => {
                warn_of(org.notice.as_deref());
                print(self.json, &org, |org| table(std::slice::from_ref(org)))
            }
            Ok(AdminReply::Checkouts(open)) => print(self.json, &open, |open| checkouts_table(open)),
            Ok(AdminReply::Link(url)) => print(self.json, &url, Clone::clone),
            Ok(AdminReply::BackedUp) => Exit::Success,
            Ok(AdminReply::Audit(audit)) => print(self.json, &audit, audit_table),
            Ok(AdminReply::Orgs(orgs)) => print(self.json, &orgs, |orgs| table(orgs)),
            // A reply to another request.
            Ok(AdminReply::Health(_)) => Exit::Failure,
        }
    }
}

/// Prints on stderr that a stop is in force and not in the database.
fn warn_of(notice: Option<&str>) {
    if let Some(notice) = notice {
        complain(format_args!("warning: {notice}"));
    }
}

/// Prints on stderr what is wrong with the server: an operator who lists organisations also operates the server. An
/// older server does not answer this request.
fn warn_of_problems(socket: &Path) {
    if let Ok(AdminReply::Health(problems)) = ask(socket, &AdminCall { request: AdminRequest::Health, reason: None }) {
        for Problem { problem, since, .. } in problems {
            complain(format_args!("warning (since {since:.0}): {problem}"));
        }
    }
}

impl OrgVerb {
    fn into_request(self) -> AdminRequest {
        match self {
            Self::Create { name, plan, limit } => AdminRequest::Create { name, plan, limit },
            Self::Checkouts => AdminRequest::Checkouts,
            Self::ConfirmCheckout { number, link: false } => AdminRequest::ConfirmCheckout { number },
            Self::ConfirmCheckout { number, link: true } => AdminRequest::LinkCheckout { number },
            Self::List => AdminRequest::List,
            Self::Show { org } => AdminRequest::Show { org },
            Self::Disable { org } => AdminRequest::Disable { org },
            Self::Enable { org, own } => AdminRequest::Enable { org, own },
            Self::Freeze { org } => AdminRequest::Freeze { org },
            Self::Unfreeze { org } => AdminRequest::Unfreeze { org },
            Self::Expire { org, never: true, .. } => AdminRequest::Expire { org, at: Expiry::Never },
            Self::Expire { org, at, never: false } => {
                AdminRequest::Expire { org, at: at.map_or(Expiry::Now, Expiry::At) }
            }
            Self::SetPlan { org, plan, limit } => AdminRequest::SetPlan { org, plan, limit },
            Self::RotateKey { org, overlap, yes } => {
                AdminRequest::RotateKey { org, overlap_seconds: span::whole_seconds(overlap), yes }
            }
            Self::Set { org, restore_needs } => AdminRequest::Set { org, restore_needs },
            Self::Key(keys) => keys.into_request(),
            Self::EndOldKey { org } => AdminRequest::EndOldKey { org },
            Self::Delete { org, .. } => AdminRequest::Delete { org },
            Self::Audit { org, device, limit, before } => AdminRequest::Audit { org, device, limit, before },
        }
    }
}

/// Asks for confirmation on a terminal. Without a terminal the answer is no.
fn confirmed(org: OrgId) -> bool {
    if !io::stdin().is_terminal() {
        return false;
    }
    let question = write!(
        io::stderr(),
        "Delete organisation {org} and all its devices? Every agent of it stops. Type the id to confirm: "
    );
    let mut line = String::new();
    question.is_ok() && io::stdin().read_line(&mut line).is_ok() && line.trim() == org.to_string()
}

/// Prints JSON or text. If a key could not be shown it is lost, so the error says so.
fn print<T: Serialize>(json: bool, value: &T, text: impl Fn(&T) -> String) -> Exit {
    let line = if json { serde_json::to_string(value).map_err(io::Error::from) } else { Ok(text(value)) };
    let mut stdout = io::stdout();
    match line.and_then(|line| writeln!(stdout, "{line}")).and_then(|()| stdout.flush()) {
        Ok(()) => Exit::Success,
        Err(error) => {
            complain(format_args!(
                "the change is done, but the answer could not be printed: {error}\nA key that was not seen is lost: `org \
                 rotate-key` makes another one."
            ));
            Exit::Failure
        }
    }
}

fn key_text(new: &NewOrgKey) -> String {
    let old = new.old_key_ends.map_or_else(String::new, |ends| {
        let word = if new.old_key_valid { "valid until" } else { "invalid since" };
        format!("\nOld key       {word} {ends:.0}")
    });
    let older = if new.older_key_ended {
        "\n\nThe key before the old one was still valid, and ended now: there are never more than two."
    } else {
        ""
    };
    let next = if new.old_key_valid {
        format!("\n\n`org show {}` names the devices that still use the old one.", new.org_id)
    } else {
        String::new()
    };
    format!(
        "Organisation  {}\nPlan          {}\nOrg key       {}{old}\n\nThe key is shown only this once. Keep it where only the \
         sidecar can read it.{older}{next}",
        new.org_id, new.plan_tier, new.org_api_key
    )
}

/// The state of the previous key; `None` when it has ended and no device uses it.
fn old_key_text(org: &OrgReport) -> Option<String> {
    let old = org.old_key.as_ref().filter(|old| old.valid || old.devices > 0)?;
    let ends = if old.valid { "is valid until" } else { "ended at" };
    let named = match (old.device_ids.is_empty(), old.devices > old.device_ids.len() as u64) {
        (true, _) => String::new(),
        (false, true) => format!(": {}, …", old.device_ids.join(", ")),
        (false, false) => format!(": {}", old.device_ids.join(", ")),
    };
    Some(format!(
        "{}: the old key {ends} {:.0}; devices that used it last: {}{named}",
        org.org_id, old.ends, old.devices
    ))
}

fn table(orgs: &[OrgReport]) -> String {
    use std::fmt::Write;
    if orgs.is_empty() {
        return "No organisations yet; `org create` adds one.".to_owned();
    }
    let mut text =
        format!("{:36}  {:8}  {:5}  {:>9}  {:20}  NAME", "ORGANISATION", "STATE", "PLAN", "DEVICES", "ACCESS UNTIL");
    for org in orgs {
        let devices = format!("{}/{}", org.devices_used, org.limit);
        let until = org.access_until.map_or_else(|| "-".to_owned(), |at| format!("{at:.0}"));
        let name = org.name.as_deref().unwrap_or("-");
        // Writing to a string does not fail.
        let _ =
            write!(text, "\n{:36}  {:8}  {:5}  {devices:>9}  {until:20}  {name}", org.org_id, org.state, org.plan_tier);
    }
    for org in orgs {
        for switch in &org.off_by {
            let told = org.off.iter().find(|off| off.switch.as_str() == switch);
            let words = told.map_or_else(|| format!("the {switch} switch is off"), SwitchedOff::words);
            let back = if switch == Switch::Own.as_str() {
                "one of its admin keys takes that back, or `org enable --own`"
            } else {
                "`org enable` takes that back"
            };
            // Writing to a string cannot fail.
            let _ = write!(text, "\n{}: {words}; {back}", org.org_id);
        }
    }
    for org in orgs.iter().filter(|org| org.restore_needs > 1) {
        let _ = write!(text, "\n{}: restores need {} keys", org.org_id, org.restore_needs);
    }
    for line in orgs.iter().filter_map(old_key_text) {
        text.push('\n');
        text.push_str(&line);
    }
    text
}

fn checkouts_table(open: &[CheckoutReport]) -> String {
    use std::fmt::Write;
    if open.is_empty() {
        return "No plan change waits for confirmation.".to_owned();
    }
    let mut text = format!("{:10}  {:36}  {:15}  {:20}  NAME", "NUMBER", "ORGANISATION", "PLAN", "OPEN UNTIL");
    for checkout in open {
        let change = format!("{} to {}", checkout.plan_tier, checkout.wanted);
        let name = checkout.name.as_deref().unwrap_or("-");
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "\n{:10}  {:36}  {change:15}  {:20.0}  {name}",
            checkout.number, checkout.org_id, checkout.expires_at
        );
    }
    text
}

fn audit_table(audit: &AuditReport) -> String {
    use std::fmt::Write;
    if audit.entries.is_empty() {
        return "No changes are recorded.".to_owned();
    }
    let mut text =
        format!("{:>6}  {:20}  {:16}  {:22}  {:20}  WHAT, AND WHY", "NUMBER", "TIME", "WHO", "CALL", "OUTCOME");
    for entry in &audit.entries {
        let what =
            entry.device_id.clone().unwrap_or_else(|| serde_json::Value::Object(entry.details.clone()).to_string());
        let what: String =
            if what.chars().count() > 80 { what.chars().take(79).chain(['…']).collect() } else { what };
        let why = entry.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "\n{:>6}  {:20.0}  {:16}  {:22}  {:20}  {what}{why}",
            entry.id, entry.at, entry.actor, entry.verb, entry.outcome
        );
    }
    if let Some(next) = audit.next_cursor {
        let _ = write!(text, "\nFor older entries: --before {next}");
    }
    text
}
