/** The world of the tests (clients/world), as Node.js asks it. */

import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";

/** A document of the vectors, or of the world. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export type Any = any;

/** How long anything may take, in milliseconds, before the test fails. */
export const LIMIT_MS = Number(process.env["ONLYONCE_LIMIT"] ?? 60) * 1000;

/** The folder of all clients. */
export const CLIENTS = needed("ONLYONCE_CLIENTS");

export const VECTORS: Any = JSON.parse(readFileSync(join(CLIENTS, "vectors.json"), "utf8"));

function needed(name: string): string {
  const value = process.env[name];
  if (value === undefined) throw new Error(`${name} is not set: run cargo xtask clients`);
  return value;
}

/** Real servers; `ask` is one control of them. */
export class World {
  readonly #child: ChildProcess;
  readonly #control: string;
  where: Any;

  private constructor(child: ChildProcess, control: string) {
    [this.#child, this.#control] = [child, control];
  }

  static async start(pages: string[] = []): Promise<World> {
    const command = [join(CLIENTS, "world/world.py"), needed("ONLYONCE_BINARY"), ...pages];
    const child = spawn("python3", command, { stdio: ["pipe", "pipe", "inherit"] });
    const lines = createInterface({ input: child.stdout });
    const [line] = (await once(lines, "line")) as [string];
    const world = new World(child, (JSON.parse(line) as Any).control);
    world.where = await world.ask({ do: "where" });
    return world;
  }

  async ask(asked: Any): Promise<Any> {
    const body = JSON.stringify(asked);
    const signal = AbortSignal.timeout(2 * LIMIT_MS);
    const answer = await fetch(this.#control, { method: "POST", body, signal });
    const told = await answer.json();
    if (!answer.ok) throw new Error(`${body}: ${JSON.stringify(told)}`);
    return told;
  }

  async end(): Promise<void> {
    const ended = once(this.#child, "exit");
    this.#child.stdin?.end();
    await ended;
  }
}

/** Fails if it takes longer than anything may. */
export async function within<T>(work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const over = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("it takes too long")), LIMIT_MS);
  });
  try {
    return await Promise.race([work, over]);
  } finally {
    clearTimeout(timer);
  }
}
