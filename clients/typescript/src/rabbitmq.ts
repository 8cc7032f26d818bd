/**
 * Takes messages from a queue of RabbitMQ, one acknowledgement for one durable record. It needs the
 * package `amqplib`.
 *
 * As the consumer in Rust (docs/consume.md): the same queues, headers and promises. Whatever is
 * moved is published first, and acknowledged once the broker has confirmed that: a crash in between
 * makes two of it, which are one to the inbox.
 */

import { readFileSync } from "node:fs";

import { connect, credentials } from "amqplib";
import type { ConfirmChannel, ConsumeMessage, GetMessage, Options, SocketOptions } from "amqplib";

import { pause } from "./http.js";
import { headersOf } from "./inbox.js";
import type { Handler, Inbox, Message, Settled } from "./inbox.js";

export { Inbox, Later, Never } from "./inbox.js";
export type { Handler, InboxOptions, Message, Settled, Why } from "./inbox.js";

/** The queues of a consumer. `source` must exist, durable; the others are made, as quorum queues,
 * unless `make` is false. */
export interface Queues {
  source: string;
  /** How long a message waits that is to come later, in milliseconds: the first time, the second,
   * and so on; the last one counts for all further times. 1 s, 5 s, 30 s, 3 min. */
  pausesMs?: readonly number[];
  make?: boolean;
}

/** How messages are taken. */
export interface RabbitOptions {
  /** How many are carried out at once: 16. */
  prefetch?: number;
  /** The pause after a connection was lost (longer each time), and while the records are away, in
   * milliseconds: 1 s. */
  pauseMs?: number;
}

/** What a consumer tells about its work. */
export type Told = "connected" | "lost" | "done" | "duplicate" | "later" | "aside" | "unanswered";
type Tell = (told: Told, why: string) => void;

/** What the broker, or we, said of a message before, which does not come back with it. */
const SAID = /^(onlyonce-|x-death|x-first-death|x-last-death|x-delivery-count)/;

/** How long the broker may take to let us in, in milliseconds. */
const CONNECT_MAX_MS = 10_000;

/** The options of an address that are the library's. */
const OPTIONS = ["heartbeat", "locale", "channelMax", "frameMax", "maxFrameSize"];

/** A consumer of one queue, whose broker is there: `amqp://user:password@host:port/vhost`.
 *
 * `amqps://` is TLS. Its options are files in PEM, which are read anew for each connection: `ca`,
 * the certificates to trust instead of the system's; `cert` and `key`, our own certificate and its
 * key. `auth_mechanism=external` lets the broker take the user from that certificate. Throws if
 * that cannot be right. */
export class Rabbit {
  readonly #url: string;
  readonly #queues: Required<Queues>;
  readonly #how: Required<RabbitOptions>;

  constructor(url: string, queues: Queues, options: RabbitOptions = {}) {
    socketOf(url);
    this.#url = url;
    this.#queues = { pausesMs: [1_000, 5_000, 30_000, 180_000], make: true, ...queues };
    this.#how = { prefetch: 16, pauseMs: 1_000, ...options };
  }

  /** Takes messages until `stop`, and connects again whenever the broker is lost. What runs when it
   * stops is waited for, the rest goes back. */
  async run(
    inbox: Inbox,
    handler: Handler,
    stop: AbortSignal,
    tell: Tell = () => undefined,
  ): Promise<void> {
    for (let lost = 0; !stop.aborted; lost++) {
      try {
        await session(this.#url, this.#queues, this.#how, inbox, handler, stop, (told, why) => {
          if (told === "connected") lost = 0;
          tell(told, why);
        });
      } catch (failure) {
        tell("lost", String(failure));
        await pause(this.#how.pauseMs * Math.min(2 ** lost, 30), stop).catch(() => 0);
      }
    }
  }

  /** Hands in again what was put aside, at most so many and only what lies there now, and says how
   * many. What was answered is not run again, however long ago that was. */
  async replay(limit: number): Promise<number> {
    const connection = await connect(...socketOf(this.#url));
    try {
      const channel = await connection.createConfirmChannel();
      const post = poster(channel);
      const aside = `${this.#queues.source}.aside`;
      const there = (await channel.checkQueue(aside)).messageCount;
      let moved = 0;
      while (moved < Math.min(limit, there)) {
        const got = await channel.get(aside);
        if (got === false) break;
        await move(post, this.#queues.source, got, []);
        channel.ack(got);
        moved += 1;
      }
      await channel.close();
      return moved;
    } finally {
      await connection.close();
    }
  }
}

/** An address for the library, and what it does not know of itself. */
function socketOf(url: string): [string, SocketOptions] {
  if (!/^amqps?:\/\//.test(url)) {
    throw new TypeError("the address of a broker begins with amqp:// or amqps://");
  }
  const [base = "", query = ""] = url.split(/\?(.*)/s);
  try {
    new URL(base);
  } catch {
    throw new TypeError("the address of a broker has no such host or port");
  }
  const files: { [option: string]: Buffer } = {};
  const rest: string[] = [];
  let mechanism = "plain";
  for (const option of query.split("&").filter((it) => it !== "")) {
    const [name = "", value = ""] = option.split(/=(.*)/s);
    if (name === "auth_mechanism") mechanism = value.toLowerCase();
    else if (OPTIONS.includes(name)) rest.push(option);
    else if (!["ca", "cert", "key"].includes(name)) {
      throw new TypeError(`\`${name}\` is no option of it`);
    } else if (base.startsWith("amqp:")) throw new TypeError(`\`${name}\` is for amqps://`);
    else if (value === "") throw new TypeError(`\`${name}\` names no file`);
    else files[name] = readFileSync(decodeURIComponent(value));
  }
  if ("cert" in files !== "key" in files) throw new TypeError("`cert` and `key` go together");
  const socket: SocketOptions = { ...files, timeout: CONNECT_MAX_MS };
  if (mechanism === "external") {
    if (!("cert" in files)) {
      throw new TypeError("`auth_mechanism=external` needs `cert` and `key`, over amqps://");
    }
    socket.credentials = credentials.external();
  } else if (mechanism !== "plain") {
    throw new TypeError("`auth_mechanism` is `plain` or `external`");
  }
  return [rest.length === 0 ? base : `${base}?${rest.join("&")}`, socket];
}

type Post = (queue: string, body: Buffer, properties: Options.Publish) => Promise<boolean>;

/** Hands messages to queues, one after the other, and waits for the broker's word: whether there is
 * a queue of that name. Throws if the broker has not taken it. */
function poster(channel: ConfirmChannel): Post {
  let last: Promise<unknown> = Promise.resolve();
  let returned = false;
  channel.on("return", () => {
    returned = true;
  });
  return (queue, body, properties) => {
    const posted = last.then(() => {
      returned = false;
      return new Promise<boolean>((resolve, reject) => {
        const how = { ...properties, persistent: true, mandatory: true };
        channel.publish("", queue, body, how, (refused: unknown) => {
          // What comes back does so before it is confirmed.
          if (refused) reject(refused as Error);
          else resolve(!returned);
        });
      });
    });
    last = posted.catch(() => undefined);
    return posted;
  };
}

function laterQueue(queues: Required<Queues>, pauses: number): [string, number] {
  const all = queues.pausesMs;
  const ms = Math.round(all[Math.min(pauses, all.length - 1)] ?? 1_000);
  return [`${queues.source}.later.${ms}`, ms];
}

async function make(channel: ConfirmChannel, queues: Required<Queues>): Promise<void> {
  const quorum = { "x-queue-type": "quorum" };
  await channel.assertQueue(`${queues.source}.aside`, { durable: true, arguments: quorum });
  for (let pauses = 0; pauses < Math.max(1, queues.pausesMs.length); pauses++) {
    const [name, ms] = laterQueue(queues, pauses);
    const own = {
      ...quorum,
      "x-message-ttl": ms,
      "x-dead-letter-exchange": "",
      "x-dead-letter-routing-key": queues.source,
      // Else the broker may lose a message on its way back when it is killed.
      "x-dead-letter-strategy": "at-least-once",
      "x-overflow": "reject-publish",
    };
    await channel.assertQueue(name, { durable: true, arguments: own });
  }
}

/** One connection: deliveries are settled on the connection that they came by. */
async function session(
  url: string,
  queues: Required<Queues>,
  how: Required<RabbitOptions>,
  inbox: Inbox,
  handler: Handler,
  stop: AbortSignal,
  tell: Tell,
): Promise<void> {
  const connection = await connect(...socketOf(url));
  const running = new Set<Promise<void>>();
  let fail: (why: unknown) => void = () => undefined;
  const failed = new Promise<never>((_, reject) => {
    fail = reject;
  });
  failed.catch(() => undefined);
  const stopped = new Promise<void>((resolve) => {
    if (stop.aborted) resolve();
    else stop.addEventListener("abort", () => resolve(), { once: true });
  });
  connection.on("error", fail);
  connection.on("close", () => fail(new Error("the broker ended the connection")));
  try {
    const channel = await connection.createConfirmChannel();
    channel.on("error", fail);
    channel.on("close", () => fail(new Error("the broker ended the channel")));
    const post = poster(channel);
    if (queues.make) await make(channel, queues);
    await channel.prefetch(Math.max(1, how.prefetch));
    const { consumerTag } = await channel.consume(queues.source, (delivery) => {
      if (delivery === null) return fail(new Error("the broker ended the consumer"));
      const settling = inbox
        .take(messageOf(delivery), handler)
        .then((settled) => settle(channel, post, queues, how, delivery, settled, tell))
        // The delivery is not acknowledged, so it comes again.
        .catch(fail)
        .finally(() => running.delete(settling));
      running.add(settling);
    });
    tell("connected", "");
    await Promise.race([stopped, failed]);
    await channel.cancel(consumerTag);
    while (running.size > 0) await Promise.race([Promise.all(running), failed]);
    await channel.close();
  } finally {
    // What still runs goes on without its delivery: the next one finds its record.
    await connection.close().catch(() => undefined);
  }
}

async function settle(
  channel: ConfirmChannel,
  post: Post,
  queues: Required<Queues>,
  how: Required<RabbitOptions>,
  delivery: ConsumeMessage,
  settled: Settled,
  tell: Tell,
): Promise<void> {
  switch (settled.is) {
    case "done":
      await answer(post, delivery, settled, tell);
      channel.ack(delivery);
      return tell(settled.replayed ? "duplicate" : "done", "");
    case "later": {
      const [queue] = laterQueue(queues, settled.pauses);
      await move(post, queue, delivery, [["onlyonce-later", settled.why]]);
      channel.ack(delivery);
      return tell("later", settled.why);
    }
    case "away":
      tell("later", settled.why);
      await pause(how.pauseMs);
      return channel.nack(delivery, false, true);
    case "aside": {
      const said = [...headersOf(settled), ["onlyonce-queue", queues.source] as [string, string]];
      await move(post, `${queues.source}.aside`, delivery, said);
      channel.ack(delivery);
      return tell("aside", `${settled.why}: ${settled.text}`);
    }
  }
}

function messageOf(delivery: ConsumeMessage): Message {
  const { properties, fields, content } = delivery;
  const headers = new Map<string, string>();
  for (const [name, value] of Object.entries(properties.headers ?? {})) {
    if (typeof value === "string" || typeof value === "number") headers.set(name, String(value));
  }
  const redelivered = fields.redelivered || headers.has("onlyonce-later");
  const id: unknown = properties.messageId;
  return { body: content, id: typeof id === "string" ? id : undefined, headers, redelivered };
}

/** Sends what a message was answered to whoever asked, before it is acknowledged. */
async function answer(
  post: Post,
  asked: ConsumeMessage,
  done: Settled & { is: "done" },
  tell: Tell,
): Promise<void> {
  const { replyTo, correlationId, messageId } = asked.properties;
  if (typeof replyTo !== "string" || replyTo === "") return;
  const kept = done.content === undefined ? "no" : "yes";
  const headers = { "onlyonce-status": String(done.status), "onlyonce-kept": kept };
  const about = (correlationId ?? messageId) as string | undefined;
  const properties = { headers, ...(about === undefined ? {} : { correlationId: about }) };
  const body = Buffer.from(done.content ?? []);
  if (!(await post(replyTo, body, properties))) tell("unanswered", replyTo);
}

/** A message as it was, but for what was said of it, to another queue. */
async function move(
  post: Post,
  queue: string,
  { properties, content }: GetMessage | ConsumeMessage,
  said: [string, string][],
): Promise<void> {
  const own = Object.entries(properties.headers ?? {}).filter(([name]) => !SAID.test(name));
  const headers = Object.fromEntries([...own, ...said]) as { [name: string]: unknown };
  const { contentType, contentEncoding, priority, correlationId, replyTo, messageId } = properties;
  const { timestamp, type, appId } = properties;
  const kept = { contentType, contentEncoding, priority, correlationId, replyTo, messageId };
  const carried = Object.entries({ ...kept, timestamp, type, appId });
  const given = Object.fromEntries(carried.filter(([, value]) => value !== undefined));
  if (!(await post(queue, content, { ...given, headers } as Options.Publish))) {
    throw new Error(`there is no queue ${queue}`);
  }
}
