//! The frame of each page: the navigation, the current place, and the link to stop everything.

use super::files;
use super::rights::SessionRights;
use super::visit::Visit;
use crate::access::Permission;
use crate::app::App;
use crate::org::Org;

/// The navigation entry that a page belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Fleet,
    Settings,
    Keys,
    Audit,
    Approvals,
    Stop,
    /// The operator's list of organisations.
    Orgs,
    /// A page without an entry in the navigation.
    Other,
}

impl Section {
    /// The section's name in the template.
    const fn name(self) -> &'static str {
        match self {
            Self::Fleet => "fleet",
            Self::Settings => "settings",
            Self::Keys => "keys",
            Self::Audit => "audit",
            Self::Approvals => "approvals",
            Self::Stop => "stop",
            Self::Orgs => "orgs",
            Self::Other => "",
        }
    }
}

/// The frame of a page.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) title: String,
    /// The path in front of every page's path.
    pub(super) base: String,
    /// The token that every form carries; empty without a session.
    pub(super) csrf: String,
    /// What the session may do: a page offers nothing else. The server refuses all else in any case.
    pub(super) rights: SessionRights,
    pub(super) org: Option<OrgPlace>,
    pub(super) section: Section,
}

/// The organisation that a page is about.
#[derive(Clone, Debug)]
pub(super) struct OrgPlace {
    pub(super) name: String,
    /// The path of the organisation's first page.
    pub(super) path: String,
    /// Whether restores need a second key.
    pub(super) by_two: bool,
    /// Why no device of it may execute, if that is so.
    pub(super) halted: Option<&'static str>,
    /// How many stops of it are in force and not in the database.
    pub(super) unwritten: usize,
}

impl Frame {
    /// A frame without a session.
    pub(super) fn bare(app: &App, title: &str) -> Self {
        Self {
            title: title.to_owned(),
            base: app.console.base.clone(),
            csrf: String::new(),
            rights: SessionRights::Unknown,
            org: None,
            section: Section::Other,
        }
    }

    /// A frame for a session.
    pub(super) fn of(app: &App, visit: &Visit, title: &str) -> Self {
        let csrf = visit.session.csrf.clone();
        Self { csrf, rights: visit.rights(), ..Self::bare(app, title) }
    }

    /// A frame for a page of an organisation.
    pub(super) fn inside(app: &App, visit: &Visit, org: &Org, section: Section, title: &str) -> Self {
        let place = OrgPlace {
            name: org.name.clone().unwrap_or_else(|| org.id.to_string()),
            path: format!("{}/org/{}", app.console.base, org.id),
            by_two: org.restore_needs >= 2,
            halted: halted(org),
            unwritten: app.store.unwritten_stops_of(org.id),
        };
        Self { org: Some(place), section, ..Self::of(app, visit, title) }
    }

    pub(super) fn is_operator(&self) -> bool {
        self.rights == SessionRights::Operator
    }

    pub(super) fn may_stop(&self) -> bool {
        self.rights.may(Permission::Stop)
    }

    pub(super) fn may_remove(&self) -> bool {
        self.rights.may(Permission::Remove)
    }

    pub(super) fn may_give_back(&self) -> bool {
        self.rights.may(Permission::GiveBack)
    }

    pub(super) fn may_administer(&self) -> bool {
        self.rights.may(Permission::Administer)
    }

    /// The address of the style sheet.
    pub(super) fn style(&self) -> String {
        format!("{}/files/{}", self.base, files::style().name)
    }

    /// The address of the icon.
    pub(super) fn icon(&self) -> String {
        format!("{}/files/{}", self.base, files::icon().name)
    }

    /// The address of the script.
    pub(super) fn script(&self) -> String {
        format!("{}/files/{}", self.base, files::script().name)
    }

    /// Whether this is the section of the page.
    pub(super) fn at(&self, section: &str) -> bool {
        self.section.name() == section
    }
}

fn halted(org: &Org) -> Option<&'static str> {
    if org.disabled {
        Some("Execution is switched off: every validation is denied with ORG_DISABLED.")
    } else if org.frozen {
        Some("The plan is frozen: every validation is denied with PLAN_FROZEN.")
    } else if org.expired(crate::routes::now()) {
        Some("The plan's entitlement has ended: every validation is denied with ENTITLEMENT_EXPIRED.")
    } else {
        None
    }
}
