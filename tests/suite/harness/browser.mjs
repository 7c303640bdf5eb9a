// A browser for the tests: reads one JSON object per line, carries out its command with Chromium, and answers each with a line:
// {"ok": …} or {"error": "…"}. It ends when its input ends. browser.rs starts it and sends the commands.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { readFileSync } from "node:fs";

const [modules, executablePath, patience] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

// Chromium has no sandbox as root, and little /dev/shm in a container. Its own network requests are switched off.
const browser = await chromium.launch({
  executablePath, headless: true, chromiumSandbox: false,
  args: ["--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--no-proxy-server"],
});
let context, page, problems = [];

// The element to act on: by role and name, label or text, as a user finds it, or by a selector.
const find = ({ role, name, label, text, css, has }) => {
  const found = role ? page.getByRole(role, { name, exact: true })
    : label ? page.getByLabel(label, { exact: true })
      : text ? page.getByText(text) : page.locator(css);
  return (has ? found.filter({ hasText: has }) : found).first();
};

const view = async ({ width, scheme }) => {
  if (width) await page.setViewportSize({ width, height: width < 600 ? 780 : 900 });
  if (scheme) await page.emulateMedia({ colorScheme: scheme });
};

const commands = {
  async open({ script, width, scheme }) {
    await context?.close();
    context = await browser.newContext({ javaScriptEnabled: script, reducedMotion: "reduce", viewport: { width, height: 900 }, colorScheme: scheme });
    context.setDefaultTimeout(Number(patience));
    page = await context.newPage();
    problems = [];
    page.on("console", (said) => { if (["error", "warning"].includes(said.type())) problems.push(`${page.url()}: ${said.text()}`); });
    page.on("pageerror", (error) => problems.push(`${page.url()}: ${error}`));
    page.on("dialog", (dialog) => { problems.push(`${page.url()} opened a dialog: ${dialog.message()}`); dialog.dismiss(); });
    page.on("request", (request) => {
      const origin = new URL(request.url());
      if (origin.hostname !== "127.0.0.1") problems.push(`${page.url()} asked ${request.url()}`);
    });
  },
  go: async ({ url }) => (await page.goto(url)).status(),
  reload: async () => (await page.reload()).status(),
  click: ({ at }) => find(at).click(),
  fill: ({ at, text }) => find(at).fill(text),
  select: ({ at, text }) => find(at).selectOption(text),
  see: ({ at }) => find(at).waitFor(),
  gone: ({ at }) => find(at).waitFor({ state: "hidden" }),
  text: ({ at }) => find(at).innerText(),
  count: ({ css }) => page.locator(css).count(),
  press: ({ key }) => page.keyboard.press(key),
  type: ({ text }) => page.keyboard.type(text),
  async tab({ at }) {
    const wanted = find(at);
    for (let steps = 1; steps <= 200; steps++) {
      await page.keyboard.press("Tab");
      if (await wanted.evaluate((element) => element === document.activeElement)) return steps;
    }
    throw new Error(`the Tab key never comes to ${JSON.stringify(at)}`);
  },
  url: () => page.url(),
  run: ({ code }) => page.evaluate(code),
  view,
  async axe() {
    await page.evaluate(axe);
    const { violations } = await page.evaluate("axe.run(document, { resultTypes: ['violations'] })");
    return violations.flatMap(({ id, help, nodes }) => nodes.map((node) => `${id}: ${help}: ${node.html.slice(0, 200)}; ${node.failureSummary}`));
  },
  problems: () => problems.splice(0),
  picture: async ({ path }) => { await page.screenshot({ path, fullPage: true }); },
};

const answer = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
answer({ ok: "ready" });
for await (const line of createInterface({ input: process.stdin })) {
  try {
    const asked = JSON.parse(line);
    answer({ ok: (await commands[asked.do](asked)) ?? null });
  } catch (error) {
    answer({ error: `${error.message ?? error}\nat ${page?.url()}\n${await page?.innerText("body", { timeout: 5000 }).catch(() => "")}` });
  }
}
await browser.close();
