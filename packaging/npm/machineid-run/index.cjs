"use strict";
// Asks this host's machineid-sidecar whether an agent may go on. Node's own modules only; it needs no key. Whatever goes wrong is a no.

const { existsSync, writeSync } = require("node:fs");
const { request } = require("node:http");

const SYSTEM = "/run/machineid/sidecar.sock";
/** The most bytes of an answer that are read; the daemon's have some 300. */
const LONGEST = 64 * 1024;
/** How long to wait before the next try when the daemon's queue of connections is full. */
const QUEUE_FULL_MS = 20;

/** The codes of the daemon, in the words of its HTTP reference. */
const SENTENCES = {
  __proto__: null,
  LOCAL_KILL: "the kill file exists",
  LOCAL_STOP: "an operator stopped the agent, or holds its device, on this host",
  DEVICE_LIMIT_REACHED: "the organisation's plan has no free place for this device",
  DEVICE_NOT_PERMITTED: "the client may not name this device",
  PID_NOT_PERMITTED: "the client may not name this process",
  REGISTRATION_LIMITED:
    "the device is not registered, and the user has registered as many new devices as device.new_per_hour allows",
  REMOTE_REFUSED: "the daemon could not stop this agent by itself, and local.require_local_killer is set",
  AUTHORITY_UNREACHABLE: "the authority gave no usable answer",
  STARTING: "no decision yet",
  CHECK_TIMEOUT: "no decision within the check's deadline",
  LEASE_EXPIRED: "no ALLOW within the lease",
  OVERLOADED: "too many requests at once",
  BAD_REQUEST: "the request is malformed",
};

class NotAllowed extends Error {
  constructor(prefix, exitCode, why, { code = null, requestId = null, deviceId = null, retryAfter = null } = {}) {
    super(`${prefix}: ${why}`);
    this.name = new.target.name;
    this.code = code;
    this.requestId = requestId;
    this.deviceId = deviceId;
    this.retryAfter = retryAfter;
    this.exitCode = exitCode;
  }

  exit() {
    try {
      writeSync(2, `${this.message}\n`);
    } catch {
      // A closed stderr changes nothing about the no.
    }
    process.exit(this.exitCode);
  }
}

class Denied extends NotAllowed {
  constructor(why, details) {
    super("denied", 77, why, details);
  }
}

class Undecided extends NotAllowed {
  constructor(why, details) {
    super("could not find out whether to go on", 75, why, details);
  }
}

function socketPath() {
  if (process.env.MACHINEID_SOCKET) return process.env.MACHINEID_SOCKET;
  return existsSync(SYSTEM) ? SYSTEM : `${process.env.XDG_RUNTIME_DIR || "/run"}/machineid/sidecar.sock`;
}

/** The object that a body holds; an empty one if it holds none, or one in which a key comes twice. */
function objectOf(body) {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(body);
    const said = JSON.parse(text);
    const keys = [...text.matchAll(/("(?:[^"\\]|\\.)*")(\s*:)?/g)].filter((one) => one[2]).map((one) => JSON.parse(one[1]));
    const plain = said !== null && typeof said === "object" && !Array.isArray(said);
    return plain && new Set(keys).size === keys.length ? said : {};
  } catch {
    return {};
  }
}

const text = (value) => (typeof value === "string" ? value : null);

/** What an answer means: the details of a yes, or an exception. */
function judge(status, retryAfter, body) {
  const said = objectOf(body);
  const code = text(said.code);
  const details = { code, requestId: text(said.request_id), deviceId: text(said.device_id) };
  if (status === 200 && said.allowed === true && code !== null) {
    const ageMs = Number.isInteger(said.age_ms) ? said.age_ms : null;
    return { ...details, validatedAt: text(said.validated_at), ageMs };
  }
  let why = `what listens there did not answer like machineid-sidecar (HTTP ${status})`;
  if (code !== null && status !== 200) {
    const sentence = text(said.reason) ?? SENTENCES[code];
    why = code + (details.requestId ? ` (request_id ${details.requestId})` : "") + (sentence ? `: ${sentence}` : "");
  }
  details.retryAfter = /^[0-9]{1,5}$/.test(retryAfter ?? "") ? Number(retryAfter) : null;
  throw new (status === 403 ? Denied : Undecided)(why, details);
}

function failed(error, path) {
  if (error.code === "ENOENT" || error.code === "ECONNREFUSED") {
    return new Undecided(`nothing listens on ${path}; is machineid-sidecar running?`);
  }
  if (error.code === "EACCES") {
    return new Undecided(
      `no permission to open ${path}; join the group of the socket (machineid), or ask the daemon's administrator`,
    );
  }
  return new Undecided(`no complete answer on ${path}: ${error.message}; is it machineid-sidecar that listens there?`);
}

/** Asks once. Rejects with the error of the connection, or with what `judge` throws. */
function exchange(socketPath, path, signal) {
  return new Promise((yes, no) => {
    const question = request({ socketPath, path, signal, agent: false, headers: { host: "localhost" } }, (response) => {
      const parts = [];
      let length = 0;
      response.on("data", (part) => {
        parts.push(part);
        length += part.length;
        if (length > LONGEST) question.destroy(new Error("it is too long"));
      });
      response.on("error", no);
      response.on("end", () => {
        if (!response.complete) return no(new Error("it was cut off"));
        try {
          yes(judge(response.statusCode, response.headers["retry-after"], Buffer.concat(parts)));
        } catch (error) {
          no(error);
        }
      });
      response.on("close", () => no(new Error("it was cut off")));
    });
    question.on("error", no);
    question.end();
  });
}

class Gate {
  #path;
  #timeout;
  #socket;
  #exits;

  constructor({ device, maxAge, timeout = 10, socket, exits = false } = {}) {
    if (!(Number.isFinite(timeout) && timeout > 0)) throw new RangeError("timeout is a number of seconds above 0");
    const query = new URLSearchParams();
    if (device !== undefined) query.set("device", device);
    if (maxAge !== undefined) {
      if (!(Number.isFinite(maxAge) && maxAge >= 0)) throw new RangeError("maxAge is a number of seconds, 0 or more");
      query.set("max_age", `${Math.floor(maxAge * 1000)}ms`);
    }
    this.#path = `/v1/check${`${query}` && `?${query}`}`;
    this.#timeout = timeout;
    this.#socket = socket;
    this.#exits = exits;
  }

  async check() {
    try {
      return await this.#ask(this.#socket ?? socketPath());
    } catch (error) {
      if (this.#exits && error instanceof NotAllowed) error.exit();
      throw error;
    }
  }

  gated(fn) {
    if (typeof fn !== "function") throw new TypeError("gated() takes a function");
    if (/^(Async)?GeneratorFunction$/.test(fn.constructor.name)) {
      throw new TypeError("gated() takes no generator: call check() in it, before each step");
    }
    const gate = this;
    const wrapper = async function (...args) {
      await gate.check();
      return fn.apply(this, args);
    };
    return Object.defineProperty(wrapper, "name", { value: fn.name, configurable: true });
  }

  async #ask(path) {
    const silent = new AbortController();
    const timer = setTimeout(() => silent.abort(), this.#timeout * 1000);
    try {
      for (;;) {
        try {
          return await exchange(path, this.#path, silent.signal);
        } catch (error) {
          // A unix socket does not wait for a place in the queue.
          if (error.code !== "EAGAIN" || silent.signal.aborted) throw error;
          await new Promise((resume) => setTimeout(resume, QUEUE_FULL_MS));
        }
      }
    } catch (error) {
      if (error instanceof NotAllowed) throw error;
      if (silent.signal.aborted) {
        throw new Undecided(
          `the daemon on ${path} gave no answer within ${this.#timeout} s; is it stopped or overloaded? See its log`,
        );
      }
      throw failed(error, path);
    } finally {
      clearTimeout(timer);
    }
  }
}

const check = (options) => new Gate(options).check();
const gated = (fn, options) => new Gate(options).gated(fn);

module.exports = { Denied, Gate, NotAllowed, Undecided, check, gated, socketPath };
