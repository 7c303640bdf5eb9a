//! The web console of the authority, as a browser without a script sees it: requests, cookies, forms.

mod sessions;
mod visitor;
