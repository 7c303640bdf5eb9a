// This script keeps a page of the console up to date; each page also works without it. When the authority sends a hint that
// something of the organisation changed, the script requests the page again and replaces the parts that are marked `data-live`.
// It builds no HTML from text: the server made everything that is shown.
"use strict";

(() => {
  const source = document.body.dataset.events;
  // The result page of a form has no part that changes.
  if (!source || !window.EventSource || !document.querySelector("[data-live]")) return;

  const status = document.getElementById("live");
  const APART = 500; // Milliseconds from a hint to the request: many changes in a row cause one request.
  const IDLE = 10000; // The same without a hint: the shown ages grow, and a hint may be lost.
  let timer = 0, asking = false, again = false, events = null;

  const say = (text) => { if (status && status.textContent !== text) status.textContent = text; };

  // Keeps selected check boxes, open details and the focus, and does not replace a field while the user types in it.
  const replace = (old, fresh) => {
    if (old.contains(document.activeElement) && document.activeElement.matches("input:not([type=checkbox]), textarea, select")) return;
    const focused = old.contains(document.activeElement) ? document.activeElement : null;
    const chosen = new Set([...old.querySelectorAll("input:checked")].map((box) => box.name + "=" + box.value));
    const open = new Set([...old.querySelectorAll("details[open]")].map((part) => part.id));
    const next = document.importNode(fresh, true);
    for (const box of next.querySelectorAll("input[type=checkbox]")) box.checked = chosen.has(box.name + "=" + box.value);
    for (const part of next.querySelectorAll("details")) if (open.has(part.id)) part.open = true;
    let heir = null;
    if (focused) {
      const same = (one) => one.tagName === focused.tagName && one.name === focused.name
        && one.value === focused.value && one.getAttribute("href") === focused.getAttribute("href");
      heir = [...next.querySelectorAll(focused.tagName)].find(same);
    }
    old.replaceWith(next);
    if (heir) heir.focus({ preventScroll: true });
  };

  const look = async () => {
    asking = true;
    try {
      const answer = await fetch(location.href, {
        headers: { "x-console-live": "1" }, credentials: "same-origin", cache: "no-store", redirect: "manual",
      });
      if (answer.type === "opaqueredirect") { leave(); say("signed out; reload to sign in"); return; }
      if (answer.ok) {
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        for (const old of document.querySelectorAll("[data-live]")) {
          const next = fresh.getElementById(old.id);
          if (next && !old.isEqualNode(next)) replace(old, next);
        }
      } else {
        say("not live: the authority answers " + answer.status);
      }
    } catch {
      say("not live: the authority cannot be reached");
    } finally {
      asking = false;
    }
  };

  const soon = (wait) => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      if (asking) { again = true; return; }
      await look();
      if (events) soon(again ? APART : IDLE);
      again = false;
    }, wait);
  };

  // A hint that arrives during a request may be about a change that the answer does not show yet.
  const hint = () => { if (asking) again = true; else soon(APART); };

  const follow = () => {
    if (events) return;
    events = new EventSource(source);
    events.addEventListener("ready", () => { say("live"); hint(); });
    events.addEventListener("changed", hint);
    events.addEventListener("error", () => say("not live; reconnecting"));
    soon(IDLE);
  };

  const leave = () => {
    clearTimeout(timer);
    if (events) events.close();
    events = null;
  };

  // A browser opens at most six connections to a server, and a live page uses one: a hidden page closes its connection.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { leave(); say(""); } else { follow(); }
  });
  if (!document.hidden) follow();
})();
