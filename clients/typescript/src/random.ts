/** Random bytes that cannot be guessed, from whoever has them: the browser, or Node.js 19 and up.
 * For Node.js 18, node.ts brings them. */

interface Source {
  getRandomValues(into: Uint8Array<ArrayBuffer>): unknown;
}

let source: Source | undefined = (globalThis as { crypto?: Source }).crypto;

/** Where random bytes come from if there is nothing global. */
export function randomFrom(other: Source): void {
  source ??= other;
}

/** So many random bytes. */
export function randomBytes(count: number): Uint8Array {
  if (source === undefined) throw new Error("there is nothing here that makes random bytes");
  const bytes = new Uint8Array(count);
  source.getRandomValues(bytes);
  return bytes;
}

/** So many bytes as an integer. */
export function randomInteger(count: number): bigint {
  return BigInt("0x" + hex(randomBytes(count)));
}

/** Bytes in hexadecimal. */
export function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
