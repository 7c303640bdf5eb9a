//! The page on which an operator confirms a plan: `GET /checkout/<token>` shows it, `POST` confirms it once.
//!
//! The token in the address is the right to confirm; it ends with its use or after an hour. The page loads nothing,
//! runs nothing, cannot be framed and sends no referrer.

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
use crate::authority::store::Checkout;

pub(super) async fn show(State(app): State<Arc<App>>, Path(token): Path<String>) -> Result<Response, Answer> {
    let checkout = app.store.checkout(SecretHash::of_token(&token)).await?;
    Ok(guarded(match checkout.filter(|checkout| checkout.open(now())) {
        Some(checkout) => Answer::html(StatusCode::OK, offer(&checkout)),
        None => gone(),
    }))
}

pub(super) async fn confirm(
    State(app): State<Arc<App>>,
    Path(token): Path<String>,
    request: Request,
) -> Result<Response, Answer> {
    let (head, _) = request.into_parts();
    let call = Call { actor: Actor::Address(ask::address(&head)), ..ask::call(&head) };
    let confirmed = app.store.confirm_checkout(SecretHash::of_token(&token), &call).await?;
    Ok(guarded(match confirmed {
        Some(checkout) => {
            info!(org = %checkout.org.id, plan = %checkout.wanted, "a plan was confirmed");
            Answer::html(StatusCode::OK, thanks(&checkout))
        }
        None => gone(),
    }))
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

fn offer(checkout: &Checkout) -> String {
    let row = |name: &str, value: &str| format!("<tr><th scope=\"row\">{name}</th><td>{}</td></tr>", escape(value));
    let org = &checkout.org;
    let table = [
        row("Organisation", &org.name.clone().unwrap_or_else(|| org.id.to_string())),
        row("Current plan", &plan(org.tier)),
        row("Wanted plan", &plan(checkout.wanted)),
    ]
    .concat();
    page(
        "Confirm the plan",
        &format!(
            "<table>{table}</table><form method=\"post\"><button type=\"submit\">Change to {}</button></form>\
             <p>This address works once, until {}.</p>",
            escape(checkout.wanted.as_str()),
            escape(&checkout.expires_at.to_string()),
        ),
    )
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
