/** The vectors of clients/vectors.json: a test for each scenario. */

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, afterEach, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import {
  Client,
  DidNotHappen,
  FileIntents,
  OnceError,
  RetryingClient,
  fingerprint,
  keyFrom,
} from "onlyonce";
import type { Attempt } from "onlyonce";

import { canonical } from "../dist/canonical.js";
import { fromProblem } from "../dist/errors.js";
import { LIMIT_MS, VECTORS, World, within } from "./world.js";
import type { Any } from "./world.js";

/** What an operation throws that has nothing to do with onlyonce. */
class Boom extends Error {}

/** What a value of the vectors stands for. */
function value(written: Any): Any {
  if (Array.isArray(written)) return written.map(value);
  if (typeof written !== "object" || written === null) return written;
  if ("$int" in written) return BigInt(written.$int);
  if ("$bytes" in written) return new Uint8Array(Buffer.from(written.$bytes, "hex"));
  if ("$float" in written) return Number(written.$float);
  if ("$half" in written) return "\ud800";
  if ("$date" in written) return new Date(written.$date);
  if ("$deep" in written) return deep(written.$deep);
  const pairs = written.$pairs ?? Object.entries(written);
  return Object.fromEntries(pairs.map(([name, item]: Any) => [name, value(item)]));
}

function deep(levels: number): Any {
  return levels === 0 ? [] : [deep(levels - 1)];
}

describe("keys", () => {
  test("fields make the keys that every client makes", () => {
    const seen = new Set<string>();
    for (const vector of VECTORS.keys.made) {
      const fields = value(vector.fields);
      if (vector.spelled !== undefined) {
        assert.equal(new TextDecoder().decode(canonical(fields)), vector.spelled);
      }
      assert.equal(keyFrom(fields[0], ...fields.slice(1)), vector.key);
      // A fingerprint spells its inputs as a key spells its fields.
      assert.equal(fingerprint(fields).slice(3), vector.key.slice(3));
      seen.add(vector.key);
    }
    assert.equal(seen.size, VECTORS.keys.made.length);
  });

  test("equal values are spelled alike", () => {
    for (const [one, other] of VECTORS.keys.same) assert.equal(fingerprint(one), fingerprint(other));
  });

  test("what has no one spelling is refused", () => {
    for (const fields of VECTORS.keys.refused) {
      const [namespace, ...others] = value(fields);
      assert.throws(() => keyFrom(namespace, ...others), TypeError, JSON.stringify(fields));
    }
  });

  test("problems are the errors that every client throws", () => {
    for (const [name, error] of Object.entries(VECTORS.problems)) {
      for (const base of ["urn:onlyonce:problem:", "https://api.example/problems#"]) {
        const thrown = fromProblem({ type: base + name, happened: "no" }, "k");
        assert.deepEqual([thrown.name, thrown.problemName, thrown.happened], [error, name, "no"]);
      }
    }
  });
});

describe("against real servers", () => {
  let world: World;
  let client: Client;
  let retrying: RetryingClient;
  let folder: string;
  let begun: Map<string, Promise<Any>>;

  before(async () => {
    world = await World.start();
  });
  after(async () => {
    await world.end();
  });
  beforeEach(async () => {
    await world.ask({ do: "reset" });
    client = new Client(world.where.service, { token: world.where.token });
    folder = await mkdtemp(join(tmpdir(), "onlyonce-intents-"));
    retrying = new RetryingClient(new FileIntents(folder));
    begun = new Map();
  });
  afterEach(async () => {
    await rm(folder, { recursive: true });
  });

  for (const kind of ["once", "send"]) {
    for (const scenario of VECTORS[kind]) {
      test(`${kind}: ${scenario.name}`, async () => {
        for (const step of scenario.steps) {
          await take(step).catch((failure: unknown) => {
            throw new Error(JSON.stringify(step), { cause: failure });
          });
        }
      });
    }
  }

  async function take(step: Any): Promise<void> {
    if ("once" in step || "send" in step) {
      const work = "once" in step ? onceStep(step.once) : sendStep(step.send);
      const settled = work.then(
        (result) => ({ result }),
        (error: unknown) => ({ error }),
      );
      if ("begin" in step) begun.set(step.begin, settled);
      else came(await within(settled), step.want);
    } else if ("join" in step) {
      came(await within(begun.get(step.join)!), step.want);
    } else if ("world" in step) {
      const told = await world.ask(step.world);
      for (const [name, wanted] of Object.entries(step.want ?? {})) {
        assert.deepEqual(told[name], wanted, name);
      }
    } else if ("restart_client" in step) {
      // All that a new process has of the old one is the folder.
      retrying = new RetryingClient(new FileIntents(folder));
    } else if ("forget" in step) {
      await retrying.forget(step.forget);
    } else if ("seed" in step) {
      await new FileIntents(folder).take(step.seed.intent, () => step.seed.key);
    } else {
      assert.fail("a step that is not known");
    }
  }

  function came(settled: Any, want: Any): void {
    if (!("error" in settled)) return returned(settled.result, want);
    const { error } = settled;
    if (error instanceof Boom) return assert.deepEqual({ raises: error.message }, want);
    if (!(error instanceof OnceError || error instanceof DidNotHappen)) throw error;
    const members: Any = { error: error.name };
    for (const name of Object.keys(want).filter((it) => it !== "error")) {
      const ours = name.replace(/_[a-z]/g, (it) => it[1]!.toUpperCase());
      members[name] = (error as Any)[ours];
    }
    assert.deepEqual(members, want, error);
  }

  function returned(result: Any, want: Any): void {
    if ("status" in want) {
      assert.equal(result.status, want.status);
      if (want.mark !== undefined) {
        assert.equal(result.headers.get("Idempotency-Status"), want.mark);
        const replayed = result.headers.get("Idempotent-Replayed") === "true";
        assert.equal(replayed, want.mark === "replayed");
      }
      if (want.json !== undefined) assert.deepEqual(result.read, want.json);
    } else if ("letters" in want) {
      assert.ok(result === "x".repeat(want.letters));
    } else if ("bytes" in want) {
      assert.equal(Buffer.from(result).toString("hex"), want.bytes);
    } else {
      assert.ok("returns" in want, `it returned ${JSON.stringify(result)}`);
      assert.deepEqual(result, want.returns);
    }
  }

  async function onceStep(asked: Any): Promise<Any> {
    const mine = { token: asked.token };
    const own = "token" in asked ? new Client(world.where.service, mine) : client;
    const options: Any = asked.inputs === undefined ? {} : { inputs: asked.inputs };
    for (const [name, set] of Object.entries(asked.options ?? {})) {
      options[name.replace("_ms", "Ms")] = set;
    }
    return await own.once(asked.key, (attempt) => acted(attempt, asked.key, asked.acts), options);
  }

  async function acted(attempt: Attempt, key: string, acts: Any): Promise<Any> {
    for (const act of acts) {
      if (act === "effect") await world.ask({ do: "effect", key });
      else if ("world" in act) await world.ask(act.world);
      else if ("commit" in act) await attempt.commit();
      else if ("note" in act) await attempt.note(act.note);
      else if ("until_lost" in act) {
        const ends = Date.now() + LIMIT_MS;
        while (!attempt.signal.aborted) {
          assert.ok(Date.now() < ends, "the claim is never over");
          await sleep(10);
        }
      } else if ("raise" in act) throw new Boom(act.raise);
      else if ("did_not_happen" in act) throw new DidNotHappen("refused before anything was sent");
      else if ("return_no_json" in act) return new Map([["order", NaN]]);
      else if ("return_letters" in act) return "x".repeat(act.return_letters);
      else return act.return;
    }
    throw new Error("the acts have no end");
  }

  async function sendStep(asked: Any): Promise<Any> {
    const options: Any = {};
    for (const [name, set] of Object.entries(asked.options ?? {})) {
      const camel = name.replace(/_[a-z]/g, (it) => it[1]!.toUpperCase());
      options[camel] = set;
    }
    const url = `${world.where.proxy}/orders`;
    const answer = await retrying.send(asked.intent, url, { json: asked.body }, options);
    const text = await answer.text();
    const read = text === "" ? undefined : JSON.parse(text);
    return Object.assign(answer, { read });
  }
});
