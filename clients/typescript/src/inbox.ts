/**
 * What is to be done with a delivery, as the record of its key says. It knows no broker.
 *
 * The same as the consumer in Rust (docs/consume.md), with the records in the record service.
 */

import { keyFrom } from "./canonical.js";
import type { Attempt, OnceOptions } from "./claim.js";
import type { Client } from "./client.js";
import type { Document } from "./desk.js";
import {
  DidNotHappen,
  Expired,
  Gone,
  InProgress,
  Mismatch,
  OnceError,
  OutcomeUnknown,
  ResultNotJson,
  Sealed,
} from "./errors.js";
import { isDocument } from "./http.js";

/** Thrown by a handler: it did not happen for now, and is to be tried again after a pause. */
export class Later extends DidNotHappen {
  override name = "Later";
}

/** Thrown by a handler: it did not happen and cannot, such as a body that is none. The message is
 * put aside at once. */
export class Never extends DidNotHappen {
  override name = "Never";
}

/** What a broker has delivered. */
export interface Message {
  readonly body: Uint8Array;
  /** What its sender calls it (AMQP: the property `message-id`). */
  readonly id: string | undefined;
  /** Its headers that are text or numbers. */
  readonly headers: ReadonlyMap<string, string>;
  /** Whether it was delivered before, and was not done with then. */
  readonly redelivered: boolean;
}

/** Makes an effect of a message; what it returns is recorded, and the message is done with. */
export type Handler = (message: Message, attempt: Attempt) => unknown;

/** Why a message was put aside. */
export type Why =
  | "no-key"
  | "mismatch"
  | "never"
  | "exhausted"
  | "unknown"
  | "expired"
  | "damaged";

/** What is to be done with a delivery: acknowledge it; deliver it again after a pause; leave it,
 * since nothing can be learnt from the records now; or never try it again by itself. */
export type Settled =
  | { is: "done"; status: number; content: Uint8Array | undefined; replayed: boolean }
  | { is: "later"; why: string; pauses: number }
  | { is: "away"; why: string }
  | { is: "aside"; why: Why; text: string; record: Document | undefined };

/** How an inbox takes messages. */
export interface InboxOptions extends OnceOptions {
  /** Finds the key of a message; by default its id. */
  key?: (message: Message) => string | undefined;
  /** The header in which the sender says when it first sent the message, in milliseconds since
   * 1970, the same in each copy. */
  sent?: string;
  /** After how many attempts that did not happen a message is put aside: 8. */
  attemptsMax?: number;
}

const KEY = /^[ -~]{1,255}$/;
const UUID7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/i;

/** Takes the messages of one consumer: two consumers that are given the same message both run
 * it. */
export class Inbox {
  readonly #client: Client;
  readonly #consumer: string;
  readonly #own: Required<Pick<InboxOptions, "key" | "attemptsMax">> & { sent?: string };
  readonly #options: OnceOptions;

  constructor(client: Client, consumer: string, options: InboxOptions = {}) {
    if (consumer === "") throw new TypeError("a consumer has a name");
    const { key = (message) => message.id, sent, attemptsMax = 8, ...once } = options;
    this.#client = client;
    this.#consumer = consumer;
    this.#own = { key, attemptsMax, ...(sent === undefined ? {} : { sent }) };
    this.#options = { waitMs: 2_000, ...once };
  }

  /** The key that the record service has for a message with this one. */
  keyOf(key: string): string {
    return keyFrom("consumer", this.#consumer, key);
  }

  /** Runs a message unless that was done before, and says what is to be done with it. */
  async take(message: Message, handler: Handler): Promise<Settled> {
    const told = this.#told(message);
    if (typeof told === "string") return aside("no-key", told, undefined);
    try {
      return await this.#run(told.key, told.first, message, handler);
    } catch (error) {
      if (!(error instanceof OnceError)) throw error;
      if (error.problemName !== "record-damaged") return { is: "away", why: error.message };
      return aside("damaged", error.message, undefined);
    }
  }

  #told(message: Message): { key: string; first: number | undefined } | string {
    let found: string | undefined;
    try {
      found = this.#own.key(message);
    } catch (thrown) {
      return `what finds its key has thrown ${String(thrown)}`;
    }
    if (found === undefined) return "it has no key";
    if (found.trim() === "" || !KEY.test(found)) {
      return "its key is not 1 to 255 characters of printable ASCII";
    }
    let first: number | undefined;
    if (UUID7.test(found)) first = parseInt(found.replace("-", "").slice(0, 12), 16);
    else if (this.#own.sent !== undefined) {
      const said = message.headers.get(this.#own.sent) ?? "";
      if (!/^[0-9]{1,15}$/.test(said)) {
        return `its header ${this.#own.sent} is no time (milliseconds since 1970, in digits)`;
      }
      first = Number(said);
    }
    return { key: this.keyOf(found), first };
  }

  async #run(
    key: string,
    first: number | undefined,
    message: Message,
    handler: Handler,
  ): Promise<Settled> {
    // One that ends the process is never counted afterwards: it is looked at before.
    if (message.redelivered) {
      const exhausted = this.#exhausted(await this.#record(key));
      if (exhausted !== undefined) return exhausted;
    }
    let ran = false;
    let failed: { with: unknown } | undefined;
    const operation = async (attempt: Attempt): Promise<unknown> => {
      ran = true;
      try {
        return await handler(message, attempt);
      } catch (raised) {
        failed = { with: raised };
        throw raised;
      }
    };
    const inputs = [first ?? null, new Uint8Array(message.body)];
    const sent = first === undefined ? {} : { firstSentMs: first };
    const options = { ...this.#options, inputs, ...sent };
    try {
      const value = await this.#client.once(key, operation, options);
      return { is: "done", status: 200, content: contentOf(value), replayed: !ran };
    } catch (error) {
      if (failed !== undefined && failed.with === error) return await this.#failed(key, error);
      if (!(error instanceof OnceError)) throw error;
      return await this.#met(key, error, ran);
    }
  }

  /** The handler has thrown this. */
  async #failed(key: string, thrown: unknown): Promise<Settled> {
    const record = await this.#record(key);
    if (!(thrown instanceof DidNotHappen)) {
      return this.#unknown(`nobody knows whether it happened: ${String(thrown)}`, record);
    }
    if (thrown instanceof Never) return aside("never", thrown.message, record);
    return this.#exhausted(record) ?? later(thrown.message, record);
  }

  /** Nobody knows. It comes later where another attempt is under way, or will be let in. */
  #unknown(text: string, record: Document | undefined): Settled {
    if (record?.["state"] !== "in-flight" && record?.["runs_again"] !== true) {
      return aside("unknown", text, record);
    }
    return this.#exhausted(record) ?? later(text, record);
  }

  /** What stands in the way. */
  async #met(key: string, error: OnceError, ran: boolean): Promise<Settled> {
    if (error instanceof ResultNotJson) {
      return { is: "done", status: 200, content: undefined, replayed: false };
    }
    if (error instanceof Gone || error instanceof Sealed) {
      const record = await this.#record(key);
      const reply = record?.["reply"];
      const content = isDocument(reply) && "json" in reply ? contentOf(reply["json"]) : undefined;
      return { is: "done", status: Number(record?.["status"] ?? 200), content, replayed: true };
    }
    if (error instanceof OutcomeUnknown) {
      return this.#unknown("nobody knows whether it happened", await this.#record(key));
    }
    if (error instanceof Expired) {
      const text = "it is older than what the store remembers: it may have happened";
      return aside("expired", text, await this.#record(key));
    }
    if (error instanceof Mismatch) {
      const text = "its key was used for another message; this one was not run";
      return aside("mismatch", text, await this.#record(key));
    }
    if (error.problemName === "key-time-invalid") return aside("no-key", error.message, undefined);
    // It is not durable, so it is not acknowledged. The record will say what is known.
    if (ran) return later(`it happened, but that is not recorded: ${error.message}`);
    if (error instanceof InProgress) return later("it is being carried out");
    throw error;
  }

  async #record(key: string): Promise<Document | undefined> {
    const { scope, patienceMs } = this.#options;
    const body = scope === undefined ? { key } : { key, scope };
    try {
      return await this.#client.ask("get", body, patienceMs);
    } catch (error) {
      if (error instanceof OnceError && error.problemName === "no-record") return undefined;
      throw error;
    }
  }

  #exhausted(record: Document | undefined): Settled | undefined {
    const state = record?.["state"];
    const attempts = Number(record?.["attempt"] ?? 0);
    if (state !== "released" && state !== "unknown") return undefined;
    if (attempts < this.#own.attemptsMax) return undefined;
    const why = state === "unknown" ? "unknown" : "exhausted";
    return aside(why, `tried ${attempts} times`, record);
  }
}

function later(why: string, record?: Document): Settled {
  return { is: "later", why, pauses: Math.max(0, Number(record?.["attempt"] ?? 1) - 1) };
}

function aside(why: Why, text: string, record: Document | undefined): Settled {
  return { is: "aside", why, text, record };
}

function contentOf(value: unknown): Uint8Array {
  if (value instanceof Uint8Array) return value;
  return new TextEncoder().encode(JSON.stringify(value ?? null));
}

/** What a message that was put aside carries from now on. */
export function headersOf(aside: Settled & { is: "aside" }): [string, string][] {
  const { why, text, record } = aside;
  const told: [string, string][] = [
    ["onlyonce-why", why],
    ["onlyonce-text", text],
    ["onlyonce-happened", happened(why, record)],
  ];
  if (record === undefined) return told;
  told.push(["onlyonce-key-id", String(record["id"])]);
  told.push(["onlyonce-state", String(record["state"])]);
  told.push(["onlyonce-fence", String(record["fence"])]);
  told.push(["onlyonce-attempts", String(record["attempt"])]);
  const doubt = record["doubt"];
  if (isDocument(doubt)) {
    told.push(["onlyonce-cause", String(doubt["cause"])]);
    told.push(["onlyonce-since", String(Date.parse(String(doubt["since"])))]);
  }
  const entries = Array.isArray(record["history"]) ? record["history"].filter(isDocument) : [];
  const history = entries.map(({ at, by, event, fence, why: reason }) => {
    return { at: Date.parse(String(at)), by, event, fence, why: reason };
  });
  return [...told, ["onlyonce-history", JSON.stringify(history)]];
}

function happened(why: Why, record: Document | undefined): string {
  // It speaks of this message; under the key of a mismatch another one may have happened.
  if (why === "no-key" || why === "mismatch") return "no";
  if (why === "expired" || why === "damaged" || record === undefined) return "unknown";
  return String(record["happened"] ?? "unknown");
}
