/**
 * onlyonce: an operation that was asked for once happens once.
 *
 * - `Client` runs operations once, with the record service (`onlyonce serve`).
 * - `RetryingClient` sends requests to APIs that know idempotency keys, with one key for each intent.
 * - `uuid7` and `keyFrom` make keys.
 *
 * docs/clients.md has a walk-through; the errors say who failed, whether it happened, and whether
 * to send it again.
 */

export { fingerprint, keyFrom } from "./canonical.js";
export type { Canonical } from "./canonical.js";
export { Attempt } from "./claim.js";
export type { OnceOptions } from "./claim.js";
export { Client } from "./client.js";
export type { CallOptions, ClientOptions } from "./client.js";
export {
  DidNotHappen,
  Expired,
  Fenced,
  Gone,
  InProgress,
  Mismatch,
  NoAnswer,
  NotExecuted,
  NotRecorded,
  OnceError,
  OutcomeUnknown,
  Refused,
  ResultNotJson,
  Sealed,
  SecondReply,
  StoreAway,
} from "./errors.js";
export type { Happened, Problem } from "./errors.js";
export type { Fetch } from "./http.js";
export { MemoryIntents, StorageIntents } from "./intents.js";
export type { IntentStore, StorageLike } from "./intents.js";
export { RetryingClient } from "./retrying.js";
export type { IntentRequest, RetryingClientOptions, RetryingOptions } from "./retrying.js";
export { uuid7 } from "./uuid7.js";
