/**
 * The client of the record service, and the order of events around an operation: claim, commit,
 * run, complete.
 *
 * - The claim is `prepared` until just before the operation runs. A claim whose answer is lost for
 *   good, or whose process dies before the operation began, frees its key by itself.
 * - Whatever is asked is asked again, the same, until it is answered or patience is over.
 * - Nothing that is sent after the operation has run can make it run again.
 */

import { fingerprint } from "./canonical.js";
import type { Canonical } from "./canonical.js";
import { Attempt, Claim, leased, scoped } from "./claim.js";
import type { Chosen, OnceOptions } from "./claim.js";
import { ASK_MS, Desk } from "./desk.js";
import type { Document } from "./desk.js";
import {
  DidNotHappen,
  Fenced,
  Gone,
  InProgress,
  NotRecorded,
  OnceError,
  Refused,
  ResultNotJson,
  SecondReply,
} from "./errors.js";
import { isDocument, monotonic, pause } from "./http.js";
import type { Fetch } from "./http.js";
import { encoded } from "./json.js";
import { hex, randomBytes } from "./random.js";

/** How long a key's freeing, or that one cannot tell, is said again; its lease ends anyway. */
const LAST_WORD_MS = 5_000;
/** The longest that one question waits for another attempt. */
const POLL_MS = 20_000;
/** How often a claim that was over before it began anything is made anew. */
const CLAIMS_MAX = 3;

/** Who asks, where, and what holds for all operations unless they say otherwise. */
export interface ClientOptions extends OnceOptions {
  /** The caller's token. */
  token?: string | undefined;
  /** In place of the global `fetch`. */
  fetch?: Fetch | undefined;
}

/** What one operation adds. */
export interface CallOptions extends OnceOptions {
  /** What must not change under the key: with other inputs the key is refused. */
  inputs?: Canonical | undefined;
}

/** Runs operations once, with the record service keeping the records. */
export class Client {
  readonly #desk: Desk;
  readonly #options: OnceOptions;

  /** `url` is the service's, such as `http://127.0.0.1:8081`. */
  constructor(url: string, { token, fetch, ...options }: ClientOptions = {}) {
    this.#desk = new Desk(url, token, fetch ?? ((to, init) => globalThis.fetch(to, init)));
    this.#options = options;
  }

  /**
   * Runs `operation` if it has not been run under `key`, and gives its result; or gives the result
   * that it had before. Results are what JSON makes of them, for the first caller too: `undefined`
   * is `null`, and members that are `undefined` are not there.
   *
   * While the operation runs its claim is renewed. Throws `InProgress`, `Mismatch`,
   * `OutcomeUnknown`, `Gone`, `Expired`, `Sealed`, `StoreAway`, `Fenced` or `Refused` if it did not
   * run here; `NotRecorded`, `ResultNotJson` or `SecondReply` if it did. What the operation throws
   * is passed on, and its outcome is unknown from then on, unless that is `DidNotHappen`.
   */
  async once<T>(
    key: string,
    operation: (attempt: Attempt) => Promise<T> | T,
    { inputs = null, ...own }: CallOptions = {},
  ): Promise<T> {
    const options = { waitMs: 30_000, patienceMs: 30_000, ...said(this.#options), ...said(own) };
    const first = options.firstSentMs;
    const question: Document = {
      ...scoped(options),
      key,
      fingerprint: fingerprint(inputs),
      ...(first === undefined ? {} : { first_sent_ms: Math.round(first) }),
    };
    const waitUntil = monotonic() + options.waitMs;
    for (let claims = 1; ; ) {
      const granted = await this.#claimed(question, options);
      if (granted instanceof InProgress) {
        const found = await this.#waited(question, granted, waitUntil);
        if (found !== undefined) return resultOf(found, key) as T;
        // It is free, and whoever asks first may have it.
        continue;
      }
      if (granted["outcome"] === "replay") return resultOf(granted, key) as T;
      const claim = new Claim(this.#desk, key, options, granted);
      if (options.prepared !== true) {
        try {
          await claim.commit();
        } catch (error) {
          // Nothing was begun, and nobody else can know that.
          await lastWord(claim, "release");
          // A claim that was over, or nearly: another may be made.
          if (error instanceof Fenced && claims++ < CLAIMS_MAX) continue;
          throw error;
        }
      }
      return (await ran(claim, operation)) as T;
    }
  }

  /** A function whose calls run once for each key that `key` makes of their arguments. `inputs`
   * makes of them what must not change; by default they are that themselves. */
  oncePer<Arguments extends readonly unknown[], T>(
    key: (...given: Arguments) => string,
    operation: (...given: Arguments) => Promise<T> | T,
    { inputs, ...options }: OnceOptions & { inputs?: (...given: Arguments) => Canonical } = {},
  ): (...given: Arguments) => Promise<T> {
    return async (...given) => {
      const chosen = inputs === undefined ? (given as unknown as Canonical) : inputs(...given);
      const call = { ...options, inputs: chosen };
      return await this.once(key(...given), () => operation(...given), call);
    };
  }

  /** Asks an endpoint by its name, such as `get` or `resolve`, and gives the answer's document
   * (docs/openapi.json). Throws the error that a problem is. */
  async ask(name: string, body: Document, patienceMs = 30_000): Promise<Document> {
    return await this.#desk.asked(name, body, patienceMs);
  }

  async #claimed(question: Document, options: Chosen): Promise<Document | InProgress> {
    // Made once, so that the claim can be repeated after a lost answer.
    const claimId = hex(randomBytes(16));
    const holder = options.holder === undefined ? {} : { holder: options.holder };
    const more = { claim_id: claimId, phase: "prepared", ...holder, ...leased(options) };
    let document: Document;
    try {
      document = await this.#desk.asked("claim", { ...question, ...more }, options.patienceMs);
    } catch (error) {
      if (error instanceof InProgress) return error;
      throw error;
    }
    if (document["outcome"] === "granted" || document["outcome"] === "replay") return document;
    throw new Refused("the answer to a claim is not understood", String(question["key"]), document);
  }

  /** The reply of the attempt that runs, or `undefined` once the key is free. */
  async #waited(
    question: Document,
    busy: InProgress,
    until: number,
  ): Promise<Document | undefined> {
    for (;;) {
      const left = until - monotonic();
      if (left <= 0) throw busy;
      const wait = Math.min(left, POLL_MS);
      const body = { ...question, wait_ms: Math.max(1, Math.round(wait)) };
      const begun = monotonic();
      try {
        return await this.#desk.asked("wait", body, left, wait + ASK_MS);
      } catch (error) {
        if (error instanceof OnceError && error.problemName === "no-record") return undefined;
        if (!(error instanceof InProgress)) throw error;
        busy = error;
      }
      if (monotonic() - begun < wait / 2) {
        // The service waits for less time than it was asked to.
        await pause(Math.min(busy.retryAfterMs ?? 1000, Math.max(0, until - monotonic())));
      }
    }
  }
}

async function ran(
  claim: Claim,
  operation: (attempt: Attempt) => unknown,
): Promise<unknown> {
  const ended = new AbortController();
  void claim.renewals(ended.signal);
  let value: unknown;
  try {
    value = await operation(new Attempt(claim));
  } catch (error) {
    // Whatever was thrown, and by whatever: it may have happened, unless that is said.
    ended.abort();
    await lastWord(claim, error instanceof DidNotHappen ? "release" : "abandon");
    throw error;
  }
  ended.abort();
  return await completed(claim, value);
}

async function completed(claim: Claim, value: unknown): Promise<unknown> {
  let told: unknown;
  try {
    // What later callers get, so that the first one gets the same.
    told = JSON.parse(encoded(value));
  } catch (failure) {
    await completeBare(claim, value);
    throw notJson(claim, value, failure);
  }
  try {
    await complete(claim, { status: 200, json: told });
  } catch (error) {
    if (error instanceof SecondReply) error.result = told;
    if (error instanceof SecondReply || !(error instanceof OnceError)) throw error;
    if (error.problemName === "body-too-large") {
      await completeBare(claim, told);
      return told;
    }
    if (error.problemName === "request-invalid") {
      await completeBare(claim, value);
      throw notJson(claim, value, error);
    }
    throw notRecorded(claim, told, error);
  }
  return told;
}

async function complete(claim: Claim, reply: Document): Promise<void> {
  const { patienceMs, retentionMs } = claim.options;
  const kept = retentionMs === undefined ? {} : { retention_ms: Math.round(retentionMs) };
  await claim.say("complete", patienceMs, { reply, ...kept });
}

/** It happened, and there is no reply that can be kept. */
async function completeBare(claim: Claim, value: unknown): Promise<void> {
  try {
    await complete(claim, { status: 200 });
  } catch (error) {
    if (!(error instanceof OnceError)) throw error;
    if (!(error instanceof SecondReply)) throw notRecorded(claim, value, error);
    error.result = value;
    throw error;
  }
}

function notJson(claim: Claim, value: unknown, why: unknown): ResultNotJson {
  const text = `it happened, and its result has no form in JSON: ${String(why)}`;
  const error = new ResultNotJson(text, claim.key, {}, why);
  error.result = value;
  return error;
}

function notRecorded(claim: Claim, value: unknown, why: OnceError): NotRecorded {
  const text = `it happened, and that could not be recorded: ${why.message}`;
  const error = new NotRecorded(text, claim.key, why.problem, why);
  [error.result, error.problemName] = [value, why.problemName];
  return error;
}

/** Says how an attempt ended that has no result. If nobody hears it, the lease ends it. */
async function lastWord(claim: Claim, name: string): Promise<void> {
  try {
    await claim.say(name, LAST_WORD_MS);
  } catch (error) {
    if (!(error instanceof OnceError)) throw error;
  }
}

function resultOf(document: Document, key: string): unknown {
  const reply = isDocument(document["reply"]) ? document["reply"] : {};
  if ("json" in reply) return reply["json"];
  if ("text" in reply) return reply["text"];
  if (typeof reply["base64"] === "string") {
    return Uint8Array.from(atob(reply["base64"]), (letter) => letter.charCodeAt(0));
  }
  throw new Gone("it happened, and it is not kept what it returned", key, document);
}

/** The options that are not `undefined`. */
function said<T extends object>(options: T): { [Name in keyof T]?: NonNullable<T[Name]> } {
  const entries = Object.entries(options).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as { [Name in keyof T]?: NonNullable<T[Name]> };
}
