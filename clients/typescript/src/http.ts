/** HTTP as the clients use it: one request, one answer, or none. */

import type { Problem } from "./errors.js";

/** Sends a request, as the global `fetch` does. */
export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

/** No whole answer came. What was sent may have arrived or not. */
export class Lost extends Error {
  override name = "Lost";
}

/** A whole answer: its body has come to its end. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Uint8Array<ArrayBuffer>;
}

/** Sends one request and takes its whole answer, within so many milliseconds.
 *
 * Throws `Lost` if none came, and `TypeError` for a request that cannot be sent at all. */
export async function ask(
  fetch: Fetch,
  url: string,
  init: RequestInit,
  timeMs: number,
): Promise<Answer> {
  const request = { ...init };
  // What is wrong with a request is said before it is sent, and not taken for a lost answer.
  new Headers(request.headers);
  const over = new AbortController();
  const timer = setTimeout(() => over.abort(), Math.min(timeMs, 2 ** 31 - 1));
  const theirs = request.signal;
  const passOn = (): void => over.abort(theirs?.reason);
  theirs?.addEventListener("abort", passOn, { once: true });
  if (theirs?.aborted) passOn();
  try {
    const response = await fetch(url, { ...request, signal: over.signal });
    const body = new Uint8Array(await response.arrayBuffer());
    return { status: response.status, headers: response.headers, body };
  } catch (failure) {
    if (theirs?.aborted) throw theirs.reason;
    throw new Lost(`${url}: ${reason(failure)}`, { cause: failure });
  } finally {
    clearTimeout(timer);
    theirs?.removeEventListener("abort", passOn);
  }
}

function reason(failure: unknown): string {
  if (!(failure instanceof Error)) return String(failure);
  const cause = failure.cause instanceof Error ? `: ${failure.cause.message}` : "";
  return failure.name === "AbortError" ? "no answer in time" : `${failure.message}${cause}`;
}

/** The body as JSON, or `undefined` if it is not. */
export function jsonOf(answer: Answer): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(answer.body)) as unknown;
  } catch {
    return undefined;
  }
}

/** Whether a value is an object with members. */
export function isDocument(value: unknown): value is { readonly [member: string]: unknown } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The problem document that an answer is, if it is one of onlyonce's. */
export function problemOf(answer: Answer): Problem | undefined {
  const kind = (answer.headers.get("Content-Type") ?? "").split(";")[0]!.trim().toLowerCase();
  if (kind !== "application/problem+json") return undefined;
  const document = jsonOf(answer);
  if (!isDocument(document) || typeof document["type"] !== "string") return undefined;
  return "happened" in document && "retryable" in document ? document : undefined;
}

/** For how many milliseconds the answer says to wait; `undefined` if it does not, or not legibly. */
export function retryAfter(answer: Answer): number | undefined {
  const said = (answer.headers.get("Retry-After") ?? "").trim();
  if (/^[0-9]+$/.test(said)) return Number(said.slice(0, 9)) * 1000;
  const at = Date.parse(said);
  return Number.isNaN(at) ? undefined : Math.max(0, at - Date.now());
}

/** The first pause after a failure, and the longest, in milliseconds. */
const PAUSE_FIRST = 100;
const PAUSE_MAX = 5_000;

/** How long to wait before the next try, in milliseconds: longer each time, and by chance, so that
 * those who failed together do not come back together. */
export function pauseAfter(tries: number): number {
  const most = Math.min(PAUSE_MAX, PAUSE_FIRST * 2 ** Math.min(tries, 10));
  return most * (0.5 + Math.random() / 2);
}

/** Lets so many milliseconds pass, unless the signal says that it is over. */
export function pause(ms: number, signal?: AbortSignal | null): Promise<void> {
  return new Promise((resolve, reject) => {
    const over = (): void => {
      clearTimeout(timer);
      reject(signal?.reason as Error);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", over);
      resolve();
    }, ms);
    if (signal?.aborted) over();
    else signal?.addEventListener("abort", over, { once: true });
  });
}

/** A time that only goes forward, in milliseconds. */
export function monotonic(): number {
  return performance.now();
}
