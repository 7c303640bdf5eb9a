// Asks this host's machineid-sidecar before each task. Node's own modules only.

import { existsSync } from "node:fs";
import { request } from "node:http";

const system = "/run/machineid/sidecar.sock";
const socketPath =
  process.env.MACHINEID_SOCKET ||
  (existsSync(system) ? system : `${process.env.XDG_RUNTIME_DIR || "/run"}/machineid/sidecar.sock`);

/** The answer is no: stop. */
export class Denied extends Error {}
/** No decision is available: stop for now. */
export class Undecided extends Error {}

/** Resolves when the answer is yes; otherwise rejects with Denied or Undecided. */
export function gate() {
  return new Promise((yes, no) => {
    const undecided = (error) => no(new Undecided(`no answer from the daemon: ${error.message}`));
    const signal = AbortSignal.timeout(10_000);
    const question = request({ socketPath, path: "/v1/check", signal }, (response) => {
      let body = "";
      response.setEncoding("utf8");
      response.on("data", (text) => (body += text));
      response.on("error", undecided);
      response.on("end", () => {
        if (response.statusCode === 200) return yes();
        let why = `HTTP ${response.statusCode}`;
        try {
          const { code, request_id, reason } = JSON.parse(body);
          why = `${code} (request_id ${request_id}): ${reason}`;
        } catch {}
        no(response.statusCode === 403 ? new Denied(why) : new Undecided(why));
      });
    });
    question.on("error", undecided);
    question.end();
  });
}

try {
  for (const task of [1, 2, 3]) {
    await gate();
    console.log(`task ${task}`);
  }
} catch (error) {
  if (!(error instanceof Denied || error instanceof Undecided)) throw error;
  const denied = error instanceof Denied;
  console.error(`${denied ? "denied" : "could not find out whether to go on"}: ${error.message}`);
  process.exitCode = denied ? 77 : 75;
}
