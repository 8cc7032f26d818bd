/** Questions to the record service: asked again, the same, until they are answered. */

import { OnceError, Refused, StoreAway, fromProblem } from "./errors.js";
import {
  Lost,
  ask,
  isDocument,
  jsonOf,
  monotonic,
  pause,
  pauseAfter,
  problemOf,
  retryAfter,
} from "./http.js";
import type { Answer, Fetch } from "./http.js";

/** How long one question may take, in milliseconds, beside the time that it is asked to wait. */
export const ASK_MS = 10_000;

/** A document of a question or an answer. */
export type Document = { readonly [member: string]: unknown };

/** Where questions go, and who asks. */
export class Desk {
  readonly #base: string;
  readonly #headers: { readonly [name: string]: string };
  readonly #fetch: Fetch;

  constructor(url: string, token: string | undefined, fetch: Fetch) {
    this.#base = `${url.replace(/\/+$/, "")}/v1/`;
    const who = token === undefined ? {} : { Authorization: `Bearer ${token}` };
    this.#headers = { ...who, "Content-Type": "application/json" };
    this.#fetch = fetch;
  }

  /** The document of the answer. The same is asked again while no answer came, or one that says
   * that asking again helps; a running attempt is not among those. */
  async asked(name: string, body: Document, patienceMs: number, askMs = ASK_MS): Promise<Document> {
    const until = monotonic() + patienceMs;
    for (let tries = 0; ; tries++) {
      let wait: number;
      try {
        return await this.once(name, body, askMs);
      } catch (error) {
        const again = error instanceof OnceError && error.retryable;
        if (!again || error.problemName === "request-in-progress") throw error;
        wait = error.retryAfterMs ?? pauseAfter(tries);
        if (until < monotonic() + wait) throw error;
      }
      await pause(Math.max(wait, 50));
    }
  }

  /** Asks one time. */
  async once(name: string, body: Document, askMs: number): Promise<Document> {
    const key = typeof body["key"] === "string" ? body["key"] : "";
    const init = { method: "POST", headers: this.#headers, body: JSON.stringify(body) };
    let answer: Answer;
    try {
      answer = await ask(this.#fetch, this.#base + name, init, askMs);
    } catch (failure) {
      if (failure instanceof Lost) throw new StoreAway(failure.message, key, {}, failure);
      throw failure;
    }
    const problem = problemOf(answer);
    if (problem !== undefined) throw fromProblem(problem, key, retryAfter(answer));
    const document = answer.status === 200 ? jsonOf(answer) : undefined;
    if (isDocument(document)) return document;
    // Something in between has answered in the service's place.
    const text = `${this.#base}${name}: status ${answer.status}, no answer of a record service`;
    const error = answer.status < 500 ? new Refused(text, key) : new StoreAway(text, key);
    error.retryAfterMs = retryAfter(answer);
    throw error;
  }
}
