/**
 * One spelling of a value as bytes: different values never have the same one.
 *
 * Each part is a tag, its length in bytes, a colon, and its content, so that no two lists of fields
 * run together into the same bytes. The client for Python spells the same values alike;
 * clients/vectors.json holds both to it.
 */

import { sha256 } from "./sha256.js";

/** What has one spelling. A number is an integer that is exact; greater ones are `bigint`. */
export type Canonical =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | readonly Canonical[]
  | { readonly [name: string]: Canonical };

/** What may be nested in what, at most. */
const DEPTH_MAX = 64;

const UTF8 = new TextEncoder();

/**
 * The bytes of a value; members of an object in whatever order.
 *
 * Throws `TypeError` for everything else. A fraction is refused because one amount has several
 * spellings (`0.1 + 0.2`), and a `Date` because it may lack its time zone: write them as text, in
 * the form that is meant.
 */
export function canonical(value: unknown, depth = 0): Uint8Array {
  if (DEPTH_MAX < depth) throw new TypeError(`a value is nested deeper than ${DEPTH_MAX}`);
  if (value === null) return part("n", []);
  switch (typeof value) {
    case "boolean":
      return part("b", [UTF8.encode(value ? "1" : "0")]);
    case "bigint":
      return part("i", [UTF8.encode(value.toString())]);
    case "number":
      if (!Number.isSafeInteger(value)) throw new TypeError(`${value} has no one spelling: ${HINT}`);
      return part("i", [UTF8.encode(BigInt(value).toString())]);
    case "string":
      return part("s", [text(value)]);
    case "object":
      return thing(value, depth);
    default:
      throw new TypeError(`a value of type ${typeof value} has no one spelling: ${HINT}`);
  }
}

const HINT = "give text, or an integer in the smallest unit";

/** What tells these inputs from others: the same for equal ones, in both clients. */
export function fingerprint(inputs: Canonical): string {
  return "k1:" + sha256(canonical(inputs));
}

/**
 * A key made from what identifies one operation, such as
 * `keyFrom("charge", orderId, amountInCents, "EUR")`.
 *
 * Equal fields give the same key, always and everywhere; any difference in value, type, number or
 * order of fields gives another. Two intentions with equal fields are therefore one: put what
 * tells them apart (an order's id, a day) among the fields. docs/clients.md lists the pitfalls.
 *
 * `namespace` names the kind of operation and is not empty; there is at least one field. Throws
 * `TypeError` for others.
 */
export function keyFrom(namespace: string, ...fields: readonly Canonical[]): string {
  if (typeof namespace !== "string" || namespace === "") {
    throw new TypeError("the namespace is a text that is not empty");
  }
  if (fields.length === 0) {
    throw new TypeError("without a field every operation would have the same key");
  }
  return "k1-" + sha256(canonical([namespace, ...fields]));
}

function thing(value: object, depth: number): Uint8Array {
  if (value instanceof Uint8Array) return part("x", [value]);
  if (Array.isArray(value)) {
    // By index: a hole is refused like any other `undefined`.
    return part("l", Array.from(value as unknown[], (item) => canonical(item, depth + 1)));
  }
  const kind: unknown = Object.getPrototypeOf(value);
  if (kind !== Object.prototype && kind !== null) {
    throw new TypeError(`a ${value.constructor?.name} has no one spelling: ${HINT}`);
  }
  const members = Object.entries(value).map(([name, item]) => ({ name: text(name), item }));
  members.sort((one, other) => compare(one.name, other.name));
  const parts = members.flatMap(({ name, item }) => [
    part("s", [name]),
    canonical(item, depth + 1),
  ]);
  return part("m", parts);
}

function part(tag: string, contents: readonly Uint8Array[]): Uint8Array {
  const length = contents.reduce((sum, content) => sum + content.length, 0);
  const head = UTF8.encode(`${tag}${length}:`);
  const whole = new Uint8Array(head.length + length);
  whole.set(head);
  let at = head.length;
  for (const content of contents) {
    whole.set(content, at);
    at += content.length;
  }
  return whole;
}

function text(value: string): Uint8Array {
  // In a pattern with the flag u, only half a character is a surrogate.
  if (/\p{Surrogate}/u.test(value)) {
    throw new TypeError("a text with half a character (a lone surrogate) has no bytes");
  }
  return UTF8.encode(value);
}

function compare(one: Uint8Array, other: Uint8Array): number {
  for (let at = 0; at < one.length && at < other.length; at++) {
    if (one[at] !== other[at]) return one[at]! - other[at]!;
  }
  return one.length - other.length;
}
