//! The page of a checkout: `GET /checkout/<secret>` shows it, `POST` confirms it once.
//!
//! There are two secrets. The one in the address that `POST /billing/checkout` gives to whoever holds the org key shows
//! the page, and no more: else whoever holds a key could set its own plan. The other is printed on the admin socket
//! (`machineid-authority org confirm-checkout NUMBER --link`) and confirms. Both end with the confirmation, or after an
//! hour. The page loads nothing, runs nothing, cannot be framed and sends no referrer.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tracing::info;

use super::answer::Answer;
use super::{App, ask, now};
use crate::authority::audit::{Actor, Call};
use crate::authority::keys::SecretHash;
use crate::authority::org::PlanTier;
use crate::authority::store::{Checkout, CheckoutKey};

pub(super) async fn show(State(app): State<Arc<App>>, Path(token): Path<String>) -> Result<Response, Answer> {
    let open = |checkout: &Checkout| checkout.open(now());
    let shown = app.store.checkout(&CheckoutKey::Address(SecretHash::of_token(&token))).await?.filter(open);
    let confirmable = match &shown {
        Some(_) => None,
        None => app.store.checkout(&link(&token)).await?.filter(open),
    };
    Ok(guarded(match (confirmable, shown) {
        (Some(checkout), _) => Answer::html(StatusCode::OK, offer(&checkout, true)),
        (None, Some(checkout)) => Answer::html(StatusCode::OK, offer(&checkout, false)),
        (None, None) => gone(),
    }))
}

pub(super) async fn confirm(
    State(app): State<Arc<App>>,
    Path(token): Path<String>,
    request: Request,
) -> Result<Response, Answer> {
    let (head, _) = request.into_parts();
    let call = Call { actor: Actor::Address(ask::address(&head)), ..ask::call(&head) };
    let confirmed = app.store.confirm_checkout(&link(&token), &call).await?;
    Ok(guarded(match confirmed {
        Some(checkout) => {
            info!(org = %checkout.org.id, plan = %checkout.wanted, "a plan was confirmed");
            Answer::html(StatusCode::OK, thanks(&checkout))
        }
        None => gone(),
    }))
}

fn link(secret: &str) -> CheckoutKey {
    CheckoutKey::Link(SecretHash::of_confirmation(secret))
}

fn guarded(answer: Answer) -> Response {
    let mut response = answer.into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        ),
    );
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn offer(checkout: &Checkout, confirmable: bool) -> String {
    let row = |name: &str, value: &str| format!("<tr><th scope=\"row\">{name}</th><td>{}</td></tr>", escape(value));
    let org = &checkout.org;
    let table = [
        row("Organisation", &org.name.clone().unwrap_or_else(|| org.id.to_string())),
        row("Current plan", &plan(org.tier)),
        row("Wanted plan", &plan(checkout.wanted)),
        row("Checkout", &checkout.number),
        row("Open until", &format!("{:.0}", checkout.expires_at)),
    ]
    .concat();
    if confirmable {
        let button = format!(
            "<table>{table}</table><form method=\"post\"><button type=\"submit\">Change to {}</button></form>",
            escape(checkout.wanted.as_str())
        );
        return page("Confirm the plan", &button);
    }
    let number = escape(&checkout.number);
    let how = format!(
        "<table>{table}</table><p>An operator of this authority confirms it, on its machine:</p>\
         <pre>machineid-authority org confirm-checkout {number} --database …</pre>\
         <p>With <code>--link</code> that prints an address where a browser confirms it.</p>"
    );
    page("A plan to be confirmed", &how)
}

fn thanks(checkout: &Checkout) -> String {
    page("The plan is changed", &format!("<p>It is now {}.</p>", escape(&plan(checkout.wanted))))
}

fn gone() -> Answer {
    let text = "<p>This address was used, is older than an hour, or was never given out. Ask for a new one with \
                <code>machineid checkout</code>.</p>";
    Answer::html(StatusCode::GONE, page("Nothing to confirm here", text))
}

fn plan(tier: PlanTier) -> String {
    format!("{tier}, up to {} devices", tier.limit())
}

fn page(title: &str, content: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title} · MachineID authority</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>body{{font:1rem/1.5 system-ui,sans-serif;\
         max-width:36rem;margin:4rem auto;padding:0 1rem}}th{{text-align:left;padding-right:2rem}}button{{font:inherit;\
         margin-top:1rem;padding:.5rem 1rem}}</style></head><body><h1>{title}</h1>{content}</body></html>"
    )
}

/// For text and attributes alike.
fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut safe, c| {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
        safe
    })
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn nothing_in_a_text_can_become_markup() {
        assert_eq!(escape("<a href='x' t=\"y\">&"), "&lt;a href=&#39;x&#39; t=&quot;y&quot;&gt;&amp;");
    }
}
