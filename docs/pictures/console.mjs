// Takes pictures of the console's pages, at the width of a desktop and of a telephone, from a real fleet during a real stop:
//     node docs/pictures/console.mjs target/debug DIRECTORY
// Needs /usr/bin/chromium and playwright-core in target/browser (.ci/run installs both).
import { spawn, execFileSync } from "node:child_process";
import { createRequire } from "node:module";
import { mkdtempSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const [programs, directory] = process.argv.slice(2).map((path) => resolve(path));
const { chromium } = createRequire(`${resolve("target/browser")}/`)("playwright-core");
const WIDTHS = { desk: 1440, telephone: 360 };
const FLEET = ["crawler", "mail", "shop", "search", "report", "billing", "support", "ads"];
// The sidecars that do not answer when everything is stopped.
const SILENT = [2, 5];

const scratch = mkdtempSync(join(tmpdir(), "console-pictures-"));
const started = [];
const program = (name) => join(programs, name);
const start = (name, ...rest) => {
  const child = spawn(program(name), rest, { stdio: ["ignore", "pipe", "ignore"], env: { PATH: process.env.PATH, HOME: scratch } });
  started.push(child);
  return child;
};
const line = (child) => new Promise((done) => child.stdout.once("data", (text) => done(String(text).split("\n")[0])));
const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

const serve = async () => {
  const authority = start("machineid-authority", "serve", "--listen", "127.0.0.1:0", "--database", `sqlite:${scratch}/db`,
    "--admin-socket", `${scratch}/admin`);
  const url = (await line(authority)).split(" ").at(-1);
  const made = execFileSync(program("machineid-authority"), ["org", "create", "--plan", "pro", "--name", "Example Ltd", "--json",
    "--admin-socket", `${scratch}/admin`]);
  return { url, ...JSON.parse(made) };
};

const host = async (name, url, key) => {
  const here = join(scratch, name);
  mkdirSync(join(here, "s"), { recursive: true });
  writeFileSync(join(here, "key"), `${key}\n`, { mode: 0o600 });
  writeFileSync(join(here, "config"), `[authority]\nurl = "${url}"\norg_key_file = "${here}/key"\ntimeout = "5s"
[device]\nid = "${name}:host-1"\n[enforcement]\ninterval = "5s"\nlease = "40s"\nstop_grace = "5s"
[local]\nsocket = "${here}/s/sock"\nruntime_dir = "${here}/run"\n`);
  const daemon = start("machineid-sidecar", "--config", join(here, "config"));
  for (const number of [1, 2, 3]) {
    // One of three takes its time to end.
    const ending = number === 3 ? `trap 'sleep ${name.length / 8}; exit' TERM` : ":";
    const agent = start("machineid-run", "--socket", join(here, "s/sock"), "--name", `${name}-${number}`, "--", "sh", "-c",
      `${ending}; echo at work; while :; do sleep 0.1; done`);
    // The daemon may not listen yet.
    if (!(await Promise.race([line(agent), new Promise((done) => agent.once("exit", () => done(null)))]))) {
      await pause(0.2);
      if (number === 1) return again(name, url, key, daemon);
    }
  }
  return daemon;
};
const again = (name, url, key, daemon) => { daemon.kill(); return host(name, url, key); };

const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", chromiumSandbox: false, args: ["--disable-dev-shm-usage"] });
try {
  const { url, orgId, orgApiKey } = await serve();
  const daemons = [];
  for (const name of FLEET) daemons.push(await host(name, url, orgApiKey));
  const page = await browser.newPage({ reducedMotion: "reduce" });
  const home = `${url}/console/org/${orgId}`;
  const take = async (name) => {
    for (const [where, width] of Object.entries(WIDTHS)) {
      for (const colorScheme of ["light", "dark"]) {
        await page.setViewportSize({ width, height: 800 });
        await page.emulateMedia({ colorScheme });
        await page.screenshot({ path: join(directory, `${name}-${where}-${colorScheme}.png`), fullPage: true });
      }
    }
  };
  mkdirSync(directory, { recursive: true });
  const admin = (...words) => String(execFileSync(program("machineid-authority"), [...words, "--admin-socket", `${scratch}/admin`])).trim();
  await page.goto(`${url}/console`);
  await take("sign-in");
  await page.getByLabel("Org key").fill(orgApiKey);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByText("ads:host-1").waitFor();
  await page.getByLabel("Select mail:host-1").click();
  await page.getByLabel("Reason").fill("sends the same message again and again");
  await page.getByRole("button", { name: "Revoke" }).click();
  await page.getByText("Revoked: 1 of 1.").waitFor();
  await take("revoked");
  await page.goto(home);
  await page.getByLabel("Select mail:host-1").click();
  await page.getByRole("button", { name: "Remove…" }).click();
  await page.getByRole("button", { name: "Remove", exact: true }).waitFor();
  await take("remove");
  await pause(3);
  await page.goto(home);
  await page.locator("tr", { hasText: "mail:host-1" }).getByText("onfirmed").waitFor();
  await take("fleet");
  await page.goto(`${home}/device?id=mail%3Ahost-1`);
  await take("device");
  await page.goto(`${home}/settings`);
  await take("organisation");
  await page.goto(`${home}/stop`);
  await page.getByLabel("Reason").fill("an agent buys what nobody ordered");
  await page.getByLabel(/Type the number/).fill(String(FLEET.length - 1));
  await take("stop");
  for (const silent of SILENT) daemons[silent].kill("SIGSTOP");
  await page.getByRole("button", { name: "Stop everything" }).click();
  await page.getByText(`of ${FLEET.length - 1} hosts not confirmed yet`).waitFor();
  await page.locator("dl.tally", { hasText: `${FLEET.length - 1 - SILENT.length} of` }).waitFor();
  await pause(6);
  await take("board");
  for (const silent of SILENT) daemons[silent].kill("SIGCONT");
  await page.getByText("Stopped, and confirmed").waitFor();
  await take("stopped");
  await page.getByText("Restore these devices").click();
  await take("restore");
  await page.getByLabel(/Type the number/).fill(String(FLEET.length - 1));
  await page.getByRole("button", { name: "Restore them" }).click();
  await page.getByText("To the fleet").waitFor();
  await take("restored");
  await page.goto(`${home}/audit`);
  await take("audit");
  await page.goto(`${home}/settings`);
  await page.getByLabel("Type the word rotate").fill("rotate");
  await page.getByRole("button", { name: "Rotate the key" }).click();
  await page.locator("#new-key").waitFor();
  await take("new-key");
  await page.goto(`${home}/settings`);
  await page.getByLabel("Plan", { exact: true }).selectOption("scale");
  await page.getByRole("button", { name: "Ask for it" }).click();
  await page.getByText("waits for the operator of this server").waitFor();
  const number = JSON.parse(admin("org", "checkouts", "--json"))[0].number;
  await page.goto(JSON.parse(admin("org", "confirm-checkout", number, "--link", "--json")));
  await take("checkout");
  await page.context().clearCookies();
  await page.goto(admin("console-link"));
  await take("operators-link");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: "Organisations" }).waitFor();
  await take("organisations");
  await page.goto(`${home}/settings`);
  await take("organisation-for-its-operator");
  await page.goto(`${url}/console/orgs`);
  await page.getByLabel("Name, for people").fill("Another Ltd");
  await page.getByRole("button", { name: "Create it" }).click();
  await page.locator("#new-key").waitFor();
  await take("organisation-created");
  await page.goto(`${home}/nothing`);
  await take("nothing-here");
} finally {
  await browser.close();
  for (const child of started.reverse()) { child.kill("SIGCONT"); child.kill(); }
  await Promise.all(started.map((child) => child.exitCode ?? child.signalCode ?? new Promise((done) => child.once("exit", done))));
  rmSync(scratch, { recursive: true });
}
