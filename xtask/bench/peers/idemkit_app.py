"""The peer `idemkit` with Redis, around an ASGI handler that answers 1 KiB.

Served by uvicorn; the port of Redis is in REDIS_PORT.
"""

import os

from idemkit import HttpConfig, IdempotencyMiddleware, RedisBackend
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route


async def pay(request):
    await request.body()
    return PlainTextResponse("a" * 1024)


app = IdempotencyMiddleware(
    Starlette(routes=[Route("/payments", pay, methods=["POST"])]),
    backend=RedisBackend.from_url(f"redis://127.0.0.1:{os.environ['REDIS_PORT']}"),
    config=HttpConfig(scope_mode="single_tenant"),
)
