//! The web console of the authority, as a browser without a script sees it: requests, cookies, forms. And as people do, in
//! a real browser.

mod barriers;
mod hints;
mod keys;
mod live;
mod pages;
mod people;
mod results;
pub(crate) mod sessions;
pub(crate) mod visitor;

use crate::harness::authority::Org;
use crate::harness::browser::{Browser, button, field, role};

/// Goes to the console, signs in with the organisation's key, and waits for its fleet.
fn sign_in(browser: &mut Browser, org: &Org<'_>) {
    assert_eq!(browser.go(&format!("{}/console", org.authority.url())), 200);
    browser.fill(&field("Org key"), &org.key);
    browser.click(&button("Sign in"));
    browser.see(&role("heading", "Fleet"));
}

/// The label of a reason.
const REASON: &str = "Reason, for the audit and the denials";
