/** What the vectors do not say: keys with a time, wrappers, and what is refused before it is sent. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";

import {
  Client,
  FileIntents,
  MemoryIntents,
  NoAnswer,
  RetryingClient,
  StorageIntents,
  uuid7,
} from "onlyonce";
import type { Fetch, IntentRequest } from "onlyonce";

import { encoded } from "../dist/json.js";
import { sha256 } from "../dist/sha256.js";
import { CLIENTS } from "./world.js";
import type { Any } from "./world.js";

async function inFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "onlyonce-unit-"));
  try {
    await work(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** The key that the client for Python finds. */
function inPython(folder: string): string {
  const read = `import onlyonce, sys
print(onlyonce.FileIntents(sys.argv[1]).take("pay cart 17", onlyonce.uuid7), end="")`;
  const env = { ...process.env, PYTHONPATH: join(CLIENTS, "python/src"), PYTHONDONTWRITEBYTECODE: "1" };
  return execFileSync("python3", ["-c", read, folder], { env }).toString();
}

test("a digest is SHA-256, whatever the length", () => {
  for (let length = 0; length < 300; length++) {
    const bytes = Uint8Array.from({ length }, (_, at) => (at * 7 + length) & 255);
    assert.equal(sha256(bytes), createHash("sha256").update(bytes).digest("hex"));
  }
});

describe("uuid7", () => {
  test("each is greater than the one before and has the time", () => {
    const before = Date.now();
    const keys = Array.from({ length: 20_000 }, uuid7);
    const after = Date.now();
    assert.deepEqual(keys, [...new Set(keys)].sort());
    for (const key of keys) {
      assert.match(key, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
      const time = parseInt(key.replaceAll("-", "").slice(0, 12), 16);
      assert.ok(before <= time && time <= after + 1);
    }
  });

  test("a clock that is set back makes no smaller key", (t) => {
    const last = uuid7();
    const now = Date.now();
    t.mock.method(Date, "now", () => now - 30_000);
    assert.ok(uuid7() > last);
    t.mock.method(Date, "now", () => now - 3_600_000);
    // Far ahead of the clock, a key would be refused.
    assert.ok(uuid7() < last);
  });
});

test("a result that would be lost in JSON is refused, and one that is not comes back", () => {
  for (const lost of [NaN, Infinity, 1n, () => 1, Symbol("a"), new Map(), new Set(),
    new Uint8Array(1), { a: [{ b: NaN }] }, [new Map()]]) {
    assert.throws(() => encoded(lost), TypeError);
  }
  const circle: Any = {};
  circle.self = circle;
  assert.throws(() => encoded(circle), TypeError);
  assert.equal(encoded(undefined), "null");
  assert.equal(encoded({ a: undefined, b: [1, "x", null] }), '{"b":[1,"x",null]}');
});

describe("keys of intents", () => {
  test("taken many times at once there is one, and Python finds it", () =>
    inFolder(async (folder) => {
      const stores = Array.from({ length: 8 }, () => new FileIntents(folder));
      const all = await Promise.all(stores.map((store) => store.take("pay cart 17", uuid7)));
      assert.equal(new Set(all).size, 1);
      assert.equal((await readdir(folder)).length, 1);
      assert.equal(inPython(folder), all[0]);
      const others = stores.map((store) => store.replace("pay cart 17", all[0]!, uuid7));
      const next = await Promise.all(others);
      assert.equal(new Set(next).size, 1);
      assert.notEqual(next[0], all[0]);
      assert.equal(inPython(folder), next[0]);
      await stores[0]!.forget("pay cart 17");
      assert.notEqual(await stores[1]!.take("pay cart 17", uuid7), next[0]);
    }));

  test("a damaged file is named and no new key is made", () =>
    inFolder(async (folder) => {
      const store = new FileIntents(folder);
      await store.take("a", uuid7);
      const file = (await readdir(folder))[0]!;
      await writeFile(join(folder, file), '{"intent": "other", "key": "k"}');
      await assert.rejects(store.take("a", uuid7), new RegExp(file));
    }));

  test("a storage that keeps nothing sends nothing", async () => {
    const keepsNothing = {
      length: 0,
      getItem: () => null,
      setItem: () => undefined,
      removeItem: () => undefined,
    };
    let sent = 0;
    const fetch: Fetch = async () => new Response(`${sent++}`);
    const client = new RetryingClient(new StorageIntents(keepsNothing), { fetch });
    await assert.rejects(client.send("a", "http://127.0.0.1:1/"), /did not keep/);
    assert.equal(sent, 0);
  });
});

describe("requests", () => {
  const url = "http://127.0.0.1:1/";

  test("what cannot be sent twice, or hides its answer, is refused before it is sent", async () => {
    let sent = 0;
    const fetch: Fetch = async () => new Response(`${sent++}`);
    const client = new RetryingClient(new MemoryIntents(), { fetch });
    const wrong: IntentRequest[] = [
      { headers: { "idempotency-key": "mine" } },
      { body: "", json: {} },
      { body: new ReadableStream() as Any },
      { redirect: "manual" },
      { mode: "no-cors" },
      { headers: { "X-A": "a\r\nb: c" } },
    ];
    for (const request of wrong) await assert.rejects(client.send("a", url, request), TypeError);
    await assert.rejects(client.send(" ", url), TypeError);
    await assert.rejects(client.send("x".repeat(1025), url), TypeError);
    assert.equal(sent, 0);
  });

  test("who gives up by a signal gets its reason, and the key stays", async () => {
    const keys = new Set<string | null>();
    const fetch: Fetch = (_, init) => {
      keys.add(new Headers(init.headers).get("Idempotency-Key"));
      throw new Error("the network is away");
    };
    const client = new RetryingClient(new MemoryIntents(), { fetch });
    const over = new AbortController();
    const sending = client.send("a", url, { signal: over.signal });
    setTimeout(() => over.abort(new Error("the page was left")), 50);
    await assert.rejects(sending, /the page was left/);
    await assert.rejects(client.send("a", url, {}, { patienceMs: 1 }), NoAnswer);
    assert.equal(keys.size, 1);
  });

  test("a client of the service passes on what is wrong with its own use", async () => {
    const fetch: Fetch = async () => new Response("{}");
    const client = new Client(url, { fetch });
    const broken = client.once("k", () => 1, { inputs: 0.5 });
    await assert.rejects(broken, TypeError);
    const wrapped = client.oncePer((id: number) => `k ${id}`, (id: number) => id);
    await assert.rejects(wrapped(0.5), TypeError);
    await assert.rejects(wrapped(1), /not understood/);
  });
});
