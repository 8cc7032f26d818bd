/**
 * What can stand in the way, as one class each. Every error answers three questions: who failed
 * (`who`), did it happen (`happened`), may the same be sent again (`retryable`).
 *
 * The answers are those of the problem documents, which docs/problems.md describes.
 */

/** Whether anything has happened under a key. */
export type Happened = "yes" | "no" | "unknown";

/** A problem document, as it came. */
export type Problem = { readonly [member: string]: unknown };

/** Thrown by an operation that certainly did not happen and no longer can: its key is free again.
 * Whoever cannot be sure throws something else. */
export class DidNotHappen extends Error {
  override name = "DidNotHappen";
}

/** The base of all errors of this package. `name` is the class. */
export class OnceError extends Error {
  override name = "OnceError";
  /** Whether anything has happened under the key. */
  happened: Happened = "unknown";
  /** Whether the same may succeed later without being changed. */
  retryable = false;
  /** Who failed: `caller`, `attempt`, `upstream`, `store`, `onlyonce` or `nobody`. */
  who = "nobody";
  /** `must` where another key could run the operation twice; `must_not` where this key can never
   * be right; `undefined` where there is none. */
  reuseKey: string | undefined = "must";
  /** The name of the problem, if the service told one. */
  problemName: string | undefined;
  /** In how many milliseconds it is worth asking again, if that was told. */
  retryAfterMs: number | undefined;
  /** What the operation returned, where it ran here: see the classes that say so. */
  result: unknown;
  /** The idempotency key. */
  readonly key: string;
  /** The whole problem document; empty if there was none. */
  readonly problem: Problem;

  constructor(text: string, key = "", problem: Problem = {}, cause?: unknown) {
    super(text, cause === undefined ? undefined : { cause });
    this.key = key;
    this.problem = problem;
  }
}

/** The first attempt is still running, also after the time that one was ready to wait. Ask again
 * later, with the same key. */
export class InProgress extends OnceError {
  override name = "InProgress";
  override retryable = true;
}

/** The key was used for another request. `happened` speaks of that one: look at what it did before
 * asking for anything with a new key. */
export class Mismatch extends OnceError {
  override name = "Mismatch";
  override who = "caller";
  override reuseKey: string | undefined = "must_not";
}

/** Nobody knows whether it happened, and it is not run again until somebody has found out. Never
 * ask for it with another key. */
export class OutcomeUnknown extends OnceError {
  override name = "OutcomeUnknown";
  override who = "attempt";
}

/** It happened, and its reply is not kept (any more). Look the result up in another way. */
export class Gone extends OnceError {
  override name = "Gone";
  override happened: Happened = "yes";
}

/** The key is too old to tell whether it was used. It is never run. */
export class Expired extends OnceError {
  override name = "Expired";
  override who = "caller";
}

/** Somebody decided that this key must never run. */
export class Sealed extends OnceError {
  override name = "Sealed";
  override happened: Happened = "no";
}

/** The claim is over: a newer one, or a final state, stands in its place. Send nothing more for
 * it. */
export class Fenced extends OnceError {
  override name = "Fenced";
  override who = "caller";
}

/** The records could not be reached in time, so nothing was begun. The same may be asked again
 * later; an earlier attempt may have happened. */
export class StoreAway extends OnceError {
  override name = "StoreAway";
  override retryable = true;
  override who = "store";
}

/** The operation happened just now (`result` is what it returned) and that could not be recorded.
 * Keep the result; do not ask again: a retry finds an unknown outcome. */
export class NotRecorded extends OnceError {
  override name = "NotRecorded";
  override happened: Happened = "yes";
  override who = "store";
}

/** The operation happened just now (`result` is what it returned), but JSON has no form for that.
 * It is recorded that it happened: later callers are told `Gone`, and it never runs again. */
export class ResultNotJson extends OnceError {
  override name = "ResultNotJson";
  override happened: Happened = "yes";
  override who = "caller";
}

/** The operation happened here (`result` is what it returned) although it was answered before,
 * differently: it may have happened twice. Operators are alarmed too. */
export class SecondReply extends OnceError {
  override name = "SecondReply";
  override happened: Happened = "yes";
  override who = "caller";
}

/** No attempt with this key has happened, and the time for more is over. Send the same again
 * later. */
export class NotExecuted extends OnceError {
  override name = "NotExecuted";
  override happened: Happened = "no";
  override retryable = true;
}

/** No answer came, however often it was asked. Whether it happened is unknown: send the same again
 * later, with the same key. `result` is the last answer of a gateway, if there was one. */
export class NoAnswer extends OnceError {
  override name = "NoAnswer";
  override retryable = true;
  override who = "upstream";
}

/** Every other problem; `problemName` says which. */
export class Refused extends OnceError {
  override name = "Refused";
  override who = "caller";
}

const CLASSES: { readonly [name: string]: new (...given: Given) => OnceError } = {
  "request-in-progress": InProgress,
  "key-reused": Mismatch,
  "outcome-unknown": OutcomeUnknown,
  "reply-not-kept": Gone,
  "key-expired": Expired,
  "key-sealed": Sealed,
  fenced: Fenced,
  "store-unavailable": StoreAway,
  "no-room": StoreAway,
  "second-reply": SecondReply,
  "attempt-released": NotExecuted,
  "upstream-unreachable": NotExecuted,
};
type Given = [text: string, key: string, problem: Problem];

/** The end of a problem's type, whatever base the service has. */
export function problemName(problem: Problem): string {
  return typeof problem["type"] === "string" ? (/[^:/#]*$/.exec(problem["type"])?.[0] ?? "") : "";
}

/** The error that a problem document is. What it does not say is as its class has it. */
export function fromProblem(problem: Problem, key: string, retryAfterMs?: number): OnceError {
  const name = problemName(problem);
  const kind = Object.hasOwn(CLASSES, name) ? CLASSES[name]! : Refused;
  const text = problem["detail"] ?? problem["title"] ?? name;
  const error = new kind(`${name}: ${String(text)}`, key, problem);
  error.problemName = name;
  error.retryAfterMs = retryAfterMs;
  const { happened, retryable, who, reuse_key: reuseKey } = problem;
  if (happened === "yes" || happened === "no" || happened === "unknown") error.happened = happened;
  if (typeof retryable === "boolean") error.retryable = retryable;
  if (typeof who === "string") error.who = who;
  error.reuseKey = typeof reuseKey === "string" ? reuseKey : undefined;
  return error;
}
