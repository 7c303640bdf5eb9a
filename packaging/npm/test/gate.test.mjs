// The module against a real daemon and a real authority, and against everything that is none. Run in a directory where the packages are
// installed: DOCS names the repository's docs.

import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";

import { check, Denied, gated, Gate, NotAllowed, Undecided } from "machineid-run";

const YES =
  '{"allowed":true,"code":"ALLOW","request_id":"r-1","device_id":"host:1","validated_at":"2026-11-24T14:03:20Z","age_ms":12,"reason":null}';
const NO =
  '{"allowed":false,"code":"DEVICE_REVOKED","request_id":"r-1","device_id":"host:1","validated_at":null,"age_ms":null,"reason":"by ann"}';
const BUSY =
  '{"allowed":false,"code":"STARTING","request_id":null,"device_id":null,"validated_at":null,"age_ms":null,"reason":null}';

const answer = (status, body, more = "", length = Buffer.byteLength(body)) =>
  `HTTP/1.1 ${status}\r\ncontent-type: application/json\r\ncontent-length: ${length}\r\nconnection: close\r\n${more}\r\n${body}`;

const places = [];
const place = () => places[places.push(mkdtempSync("/tmp/machineid-npm-")) - 1];

/** What the module makes of these bytes from a listener. */
async function judged(received) {
  const socket = join(place(), "socket");
  const server = createServer((connection) => connection.on("error", () => {}).once("data", () => connection.end(received)));
  server.listen(socket);
  await once(server, "listening");
  try {
    return await check({ socket, timeout: 5 });
  } finally {
    server.close();
  }
}

let daemon, machineid, device, socket;
const operator = (verb) => execFileSync(machineid, [verb, device], { stdio: "ignore" });
const word = (options) =>
  check(options).then(
    () => "yes",
    (error) => (error instanceof Denied ? "no" : "undecided"),
  );
async function until(wanted, options) {
  const limit = Date.now() + 30_000;
  while ((await word(options)) !== wanted) assert.ok(Date.now() < limit, `waited in vain for ${wanted}`);
}

before(async () => {
  daemon = spawn("node_modules/.bin/machineid-sidecar", ["--dev"], { stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  for await (const part of daemon.stderr) {
    said += part;
    const found = /(\S+\/machineid) revoke (\S+)/.exec(said);
    if (found) {
      [, machineid, device] = found;
      break;
    }
  }
  assert.ok(machineid, `the daemon did not start: ${said}`);
  socket = join(dirname(machineid), "sidecar.sock");
  process.env.MACHINEID_SOCKET = socket;
  await until("yes");
});
after(async () => {
  if (daemon.exitCode === null && daemon.signalCode === null) {
    daemon.kill("SIGKILL");
    await once(daemon, "exit");
  }
  for (const one of [...places, socket && dirname(socket)]) if (one) rmSync(one, { recursive: true, force: true });
});

test("a yes is status 200 with an object that says allowed", async () => {
  const yes = await judged(answer("200 OK", YES));
  assert.deepEqual([yes.code, yes.requestId, yes.deviceId, yes.ageMs], ["ALLOW", "r-1", "host:1", 12]);
});

test("a no says the code, the request and the reason", async () => {
  await assert.rejects(judged(answer("403 Forbidden", NO)), (error) => {
    assert.ok(error instanceof Denied && error instanceof NotAllowed);
    assert.equal(error.message, "denied: DEVICE_REVOKED (request_id r-1): by ann");
    assert.deepEqual([error.code, error.exitCode], ["DEVICE_REVOKED", 77]);
    return true;
  });
  for (const body of ["", "<html>", "[]", "{"]) await assert.rejects(judged(answer("403 Forbidden", body)), Denied);
});

test("no decision says its sentence, and when to ask again", async () => {
  await assert.rejects(judged(answer("503 Service Unavailable", BUSY, "retry-after: 2\r\n")), (error) => {
    assert.equal(error.message, "could not find out whether to go on: STARTING: no decision yet");
    assert.deepEqual([error.retryAfter, error.exitCode], [2, 75]);
    return error instanceof Undecided;
  });
});

test("everything else is undecided", async () => {
  for (const received of [
    "",
    "hello",
    "HTTP/1.1 200 OK",
    `HTTP/1.1 2000 OK\r\n\r\n${YES}`,
    answer("204 No Content", YES),
    answer("202 Accepted", YES),
    answer("503 Busy", YES),
    answer("302 Found", YES),
    answer("100 Continue", YES),
    answer("200 OK", ""),
    answer("200 OK", NO),
    answer("200 OK", "<html>yes</html>"),
    answer("200 OK", "[true]"),
    answer("200 OK", "true"),
    answer("200 OK", YES.replace("true", '"true"')),
    answer("200 OK", YES.replace("true", "1")),
    answer("200 OK", YES.replace("true", "null")),
    answer("200 OK", YES.replace('"ALLOW"', "null")),
    answer("200 OK", YES.replace('{"', '{"allowed":false,"')),
    answer("200 OK", YES.replace('{"', '{"\\u0061llowed":false,"')),
    answer("200 OK", YES, "", YES.length + 1),
    answer("200 OK", YES.slice(0, -1)),
    Buffer.concat([Buffer.from(answer("200 OK", "", "", YES.length + 1)), Buffer.from([0xff]), Buffer.from(YES)]),
    answer("200 OK", "[".repeat(60_000)),
    `HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n${YES}`,
    answer("200 OK", YES + " ".repeat(64 * 1024)),
  ]) {
    await assert.rejects(judged(received), Undecided, received.toString().slice(0, 80));
  }
});

test("no path is ever a yes", async () => {
  for (const path of ["/nonexistent/socket", "/dev/null", `/${"x".repeat(200)}`, "/with\0zero", "/tmp"]) {
    await assert.rejects(check({ socket: path }), Undecided, path);
  }
});

test("a listener that drips is given up at the time limit", async () => {
  const path = join(place(), "socket");
  const drips = [];
  const server = createServer((connection) => {
    drips.push(setInterval(() => connection.write("H"), 50), connection.on("error", () => {}));
  }).listen(path);
  await once(server, "listening");
  await assert.rejects(check({ socket: path, timeout: 0.3 }), Undecided);
  for (const one of drips) one.destroy ? one.destroy() : clearInterval(one);
  server.close();
});

test("the sentences are those of the HTTP reference", () => {
  const page = readFileSync(join(process.env.DOCS, "http.md"), "utf8");
  const table = page.split("### Codes of the daemon")[1].split("\n### ")[0];
  const source = readFileSync(createRequire(import.meta.url).resolve("machineid-run"), "utf8");
  let rows = 0;
  for (const [, codes, sentences] of table.matchAll(/^\| (`[A-Z_`, ]+`) \| \d+ \| (.*) \|$/gm)) {
    const parts = sentences.replaceAll("`", "").split("; ");
    [...codes.matchAll(/`([A-Z_]+)`/g)].forEach(([, code], at) => {
      rows += 1;
      assert.ok(new RegExp(`${code}:\\s+"(the client )?${parts[at].replaceAll(/[.()]/g, "\\$&")}"`).test(source), code);
    });
  }
  assert.equal(rows, 13);
});

test("require and import give the same classes", () => {
  const required = createRequire(import.meta.url)("machineid-run");
  assert.equal(required.Denied, Denied);
  assert.equal(required.check, check);
});

test("settings without sense, and generators, are refused at once", () => {
  for (const wrong of [{ timeout: 0 }, { timeout: NaN }, { maxAge: -1 }, { maxAge: Infinity }]) {
    assert.throws(() => new Gate(wrong), RangeError);
  }
  assert.throws(() => gated(function* () {}), TypeError);
  assert.throws(() => gated(async function* () {}), TypeError);
});

test("a yes lets a gated function run, with its arguments, its this and its errors", async () => {
  const yes = await check();
  assert.deepEqual([yes.code, yes.deviceId], ["ALLOW", device]);
  assert.equal((await check({ maxAge: 5, device })).code, "ALLOW");
  const adder = {
    base: 1,
    add: gated(function add(a) {
      return this.base + a;
    }),
  };
  assert.equal(await adder.add(2), 3);
  assert.equal(adder.add.name, "add");
  assert.equal(await gated(async (a) => a, { maxAge: 2 })("x"), "x");
  await assert.rejects(gated(() => { throw new RangeError("own"); })(), { name: "RangeError", message: "own" });
  assert.deepEqual(new Set(await Promise.all(Array.from({ length: 100 }, () => word()))), new Set(["yes"]));
});

test("the program itself takes the place of the launcher: exit codes, signals, streams", async () => {
  const run = (...command) => spawnSync("node_modules/.bin/machineid-run", ["--", ...command], { input: "in", encoding: "utf8" });
  assert.equal(run("sh", "-c", "exit 7").status, 7);
  assert.equal(run("cat").stdout, "in");
  assert.equal(run("printf", "%s|", "a b", "", "*").stdout, "a b||*|");
  assert.equal(run("sh", "-c", "kill -TERM $$").status, 128 + 15);
  assert.equal(run("/nonexistent").status, 127);
  const agent = spawn("node_modules/.bin/machineid-run", ["--", "sh", "-c", 'trap "echo got; exit 9" TERM; echo ready; while :; do sleep 0.05; done']);
  await once(agent.stdout, "data");
  assert.match(readFileSync(`/proc/${agent.pid}/exe`.replace("exe", "comm"), "utf8"), /^machineid-run$/m);
  agent.kill("SIGTERM");
  assert.deepEqual(await once(agent, "exit"), [9, null]);
});

test("npx starts it, without a registry", () => {
  const npx = spawnSync("npx", ["--offline", "machineid-run", "--", "node", "-e", "process.exit(11)"], { encoding: "utf8" });
  assert.equal(npx.status, 11, npx.stderr);
});

test("a stopped daemon is undecided at the time limit", async () => {
  daemon.kill("SIGSTOP");
  try {
    await assert.rejects(check({ timeout: 0.3 }), /gave no answer within 0.3 s; is it stopped or overloaded/);
  } finally {
    daemon.kill("SIGCONT");
  }
  await until("yes");
});

test("a revoke stops the agent, the next one, and every gated function before it begins", async () => {
  const agent = spawn("node_modules/.bin/machineid-run", ["--", "node", "-e", "process.on('SIGTERM', () => {}); console.log(1); setInterval(() => {}, 1000)"]);
  await once(agent.stdout, "data");
  operator("revoke");
  assert.deepEqual(await once(agent, "exit"), [77, null]);
  await until("no");
  let ran = 0;
  await assert.rejects(gated(() => (ran += 1))(), /^Denied: denied: DEVICE_REVOKED/);
  await assert.rejects(new Gate().gated(async () => (ran += 1))(), Denied);
  assert.equal(ran, 0);
  const program = 'import("machineid-run").then((m) => m.gated(() => console.log("worked"), { exits: true })())';
  const ended = spawnSync("node", ["-e", program], { encoding: "utf8" });
  assert.deepEqual([ended.status, ended.stdout], [77, ""]);
  assert.match(ended.stderr, /^denied: DEVICE_REVOKED.*\n$/);
  assert.equal(spawnSync("node_modules/.bin/machineid-run", ["--", "true"]).status, 77);
  operator("unrevoke");
  await until("yes");
});

test("a dead daemon is undecided", async () => {
  daemon.kill("SIGKILL");
  await once(daemon, "exit");
  await assert.rejects(check(), /nothing listens on .*; is machineid-sidecar running/);
  assert.equal(spawnSync("node_modules/.bin/machineid-run", ["--", "true"]).status, 75);
});
