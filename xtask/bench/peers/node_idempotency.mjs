// The peer `@node-idempotency/core` with its Redis adapter, around a handler that answers 1 KiB.
// Arguments: port, port of Redis. Run in a folder that has the packages.

import http from "node:http";
import { createRequire } from "node:module";

const require = createRequire(process.cwd() + "/");
const { Idempotency } = require("@node-idempotency/core");
const { RedisStorageAdapter } = require("@node-idempotency/storage-adapter-redis");

const [port, redis] = process.argv.slice(2);
const storage = new RedisStorageAdapter({ url: `redis://127.0.0.1:${redis}` });
await storage.connect();
const idempotency = new Idempotency(storage, {});
const reply = "a".repeat(1024);

async function serve(request, response) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const asked = {
    headers: request.headers,
    path: request.url,
    method: request.method,
    body: JSON.parse(Buffer.concat(chunks).toString()),
  };
  const kept = await idempotency.onRequest(asked);
  if (!kept) await idempotency.onResponse(asked, { body: reply, additional: { status: 200 } });
  response.end(kept ? kept.body : reply);
}

http
  .createServer((request, response) => {
    serve(request, response).catch(() => {
      response.statusCode = 500;
      response.end();
    });
  })
  .listen(Number(port), "127.0.0.1");
