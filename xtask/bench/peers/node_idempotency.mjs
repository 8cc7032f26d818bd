// The peer `@node-idempotency/core` with its Redis adapter, around a handler that answers 1 KiB.
// Arguments: port, port of Redis, and `express` for an Express application instead of plain
// node:http. Run in a folder that has the packages.

import http from "node:http";
import { createRequire } from "node:module";

const require = createRequire(process.cwd() + "/");
const { Idempotency } = require("@node-idempotency/core");
const { RedisStorageAdapter } = require("@node-idempotency/storage-adapter-redis");

const [port, redis, framework] = process.argv.slice(2);
const storage = new RedisStorageAdapter({ url: `redis://127.0.0.1:${redis}` });
await storage.connect();
const idempotency = new Idempotency(storage, {});
const reply = "a".repeat(1024);

async function answer(request, body) {
  const { headers, url: path, method } = request;
  const asked = { headers, path, method, body };
  const kept = await idempotency.onRequest(asked);
  if (kept) return kept.body;
  await idempotency.onResponse(asked, { body: reply, additional: { status: 200 } });
  return reply;
}

async function plain(request, response) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  response.end(await answer(request, JSON.parse(Buffer.concat(chunks).toString())));
}

if (framework === "express") {
  const express = require("express");
  const app = express();
  app.use(express.json());
  app.post("/payments", (request, response, next) => {
    answer(request, request.body).then((body) => response.send(body), next);
  });
  app.listen(Number(port), "127.0.0.1");
} else {
  const server = http.createServer((request, response) => {
    plain(request, response).catch(() => {
      response.statusCode = 500;
      response.end();
    });
  });
  server.listen(Number(port), "127.0.0.1");
}
