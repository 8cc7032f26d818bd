/** A client for APIs that know idempotency keys, such as those behind `onlyonce proxy`: one key for
 * each intent, whatever is retried, reloaded or restarted. */

import { NoAnswer, NotExecuted, OutcomeUnknown, fromProblem } from "./errors.js";
import type { OnceError } from "./errors.js";
import { Lost, ask, monotonic, pause, pauseAfter, problemOf, retryAfter } from "./http.js";
import type { Answer, Fetch } from "./http.js";
import { MemoryIntents } from "./intents.js";
import type { IntentStore } from "./intents.js";
import { uuid7 } from "./uuid7.js";

/** How requests are sent. */
export interface RetryingOptions {
  /** For how long to send again before giving up: 60 s. After that no attempt begins. */
  patienceMs?: number | undefined;
  /** For how long one attempt may go without a whole answer: 30 s. A shorter time than the
   * operation takes does no harm: the next attempt joins the first. */
  attemptMs?: number | undefined;
  /** The longest `Retry-After` that is waited for: 30 s; a longer one is cut to it. */
  retryAfterMaxMs?: number | undefined;
  /** The field that carries the key: `Idempotency-Key`. */
  keyName?: string | undefined;
}

/** Where keys are kept, and what holds for all requests unless they say otherwise. */
export interface RetryingClientOptions extends RetryingOptions {
  /** In place of the global `fetch`. */
  fetch?: Fetch | undefined;
}

/** A request: what `fetch` takes, with a body that can be sent more than once. */
export interface IntentRequest extends Omit<RequestInit, "body"> {
  body?: Exclude<RequestInit["body"], ReadableStream> | undefined;
  /** In place of a body: sent as JSON. */
  json?: unknown;
}

/** What whoever stands in front answers when the same may do better later. */
const PASSING = new Set([408, 425, 429, 502, 503, 504]);
/** Answers of the service itself, however they look. */
const ANSWERED = new Set(["executed", "replayed", "unrecorded", "unprotected"]);

/** Sends requests that happen once. */
export class RetryingClient {
  readonly #store: IntentStore;
  readonly #fetch: Fetch;
  readonly #options: RetryingOptions;

  /** `store` keeps the keys of intents: `StorageIntents` in a browser, `FileIntents` in Node.js, if
   * they are to outlive the page or process; else they are kept in memory. */
  constructor(store: IntentStore = new MemoryIntents(), options: RetryingClientOptions = {}) {
    const { fetch, ...others } = options;
    this.#store = store;
    this.#fetch = fetch ?? ((url, init) => globalThis.fetch(url, init));
    this.#options = others;
  }

  /**
   * Sends the request of an intent until it is answered, always with the intent's key, and gives
   * the answer, whatever its status: an error that the API answered is an answer.
   *
   * `intent` is your name for the one thing that is wanted, such as `"pay cart 17"`: the same for
   * everything that is to happen once together, in every page and process. Its key is kept until
   * `forget`, also when it was answered.
   *
   * Throws `OutcomeUnknown` at once if nobody knows whether it happened, `InProgress`, `NoAnswer`,
   * `StoreAway` or `NotExecuted` when patience is over (the same `send` may follow later),
   * `Mismatch`, `Gone`, `Expired`, `Sealed` or `Refused` if that is what the key meets.
   */
  async send(
    intent: string,
    url: string,
    request: IntentRequest = {},
    own: RetryingOptions = {},
  ): Promise<Response> {
    const options = { ...this.#options, ...own };
    const {
      patienceMs = 60_000,
      attemptMs = 30_000,
      retryAfterMaxMs = 30_000,
      keyName = "Idempotency-Key",
    } = options;
    const init = ready(request, keyName);
    const until = monotonic() + patienceMs;
    let key = await this.#store.take(intent, uuid7);
    let replaced = false;
    for (let tries = 0; ; tries++) {
      init.headers.set(keyName, `"${key}"`);
      const verdict = await this.#tried(url, init, key, attemptMs);
      if (verdict instanceof Response) return verdict;
      const { error, again, newKey } = verdict;
      if (newKey && !replaced) {
        // The service says that this key can never be right, so nothing ran under it.
        replaced = true;
        key = await this.#store.replace(intent, key, uuid7);
        continue;
      }
      if (!again) throw error;
      let wait = pauseAfter(tries);
      const told = error.retryAfterMs;
      if (told !== undefined) wait = Math.max(wait, Math.min(told, retryAfterMaxMs));
      if (until <= monotonic() + wait) throw error;
      await pause(wait, init.signal);
    }
  }

  /** The intent is over. The next `send` of its name is a new operation with a new key: call it
   * only when the outcome is known and noted, or when something new is wanted. */
  async forget(intent: string): Promise<void> {
    await this.#store.forget(intent);
  }

  async #tried(
    url: string,
    init: RequestInit,
    key: string,
    timeMs: number,
  ): Promise<Response | Verdict> {
    let answer: Answer;
    try {
      answer = await ask(this.#fetch, url, init, timeMs);
    } catch (failure) {
      if (!(failure instanceof Lost)) throw failure;
      return { error: new NoAnswer(failure.message, key, {}, failure), again: true };
    }
    return judged(answer, key) ?? response(answer);
  }
}

/** What an answer means that is not the API's. */
interface Verdict {
  /** What is thrown when nothing more is sent. */
  error: OnceError;
  /** The same, with the same key, may do better. */
  again?: boolean;
  /** The key can never be right, and nothing ran under it. */
  newKey?: boolean;
}

/** Reads `Idempotency-Status` and the problem, never the status alone: the API behind onlyonce
 * answers 409 and 422 too. */
function judged(answer: Answer, key: string): Verdict | undefined {
  const mark = answer.headers.get("Idempotency-Status")?.trim() ?? "";
  if (ANSWERED.has(mark)) return undefined;
  const problem = problemOf(answer);
  if (problem !== undefined) {
    const error = fromProblem(problem, key, retryAfter(answer));
    // With 422 the key has run, with another request: that is for the caller to look at.
    const newKey = error.reuseKey === "must_not" && answer.status === 400;
    return { error, again: error.retryable, newKey };
  }
  if (mark === "unknown") {
    const text = `whoever answered with status ${answer.status} does not know whether it happened`;
    return { error: answered(new OutcomeUnknown(text, key), answer) };
  }
  if (!PASSING.has(answer.status)) return undefined;
  const text = `status ${answer.status}, and nothing says that it is final`;
  const kind = mark === "not-executed" ? NotExecuted : NoAnswer;
  return { error: answered(new kind(text, key), answer), again: true };
}

function answered(error: OnceError, answer: Answer): OnceError {
  error.result = response(answer);
  error.retryAfterMs = retryAfter(answer);
  return error;
}

function response({ status, headers, body }: Answer): Response {
  // These statuses have no body, and a Response insists on that.
  const none = status === 204 || status === 205 || status === 304;
  return new Response(none ? null : body, { status, headers });
}

function ready(request: IntentRequest, keyName: string): RequestInit & { headers: Headers } {
  const { json, ...init } = request;
  const headers = new Headers(init.headers);
  if (headers.has(keyName)) throw new TypeError(`${keyName} is the intent's, not given by hand`);
  if (init.redirect === "manual" || init.mode === "no-cors") {
    throw new TypeError("an answer that nobody may read cannot be understood");
  }
  const given = init as RequestInit;
  if (given.body instanceof ReadableStream) {
    throw new TypeError("a stream can be sent once only: give bytes or text");
  }
  if (json === undefined) return { method: "POST", ...init, headers } as Ready;
  if (init.body !== undefined) throw new TypeError("give body or json, one of them");
  if (!headers.has("Content-Type")) headers.set("Content-Type", "application/json");
  return { method: "POST", ...init, body: JSON.stringify(json), headers } as Ready;
}

type Ready = RequestInit & { headers: Headers };
