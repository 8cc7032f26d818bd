"""The service behind the peer Restate: one handler that answers 1 KiB. Served by hypercorn."""

import restate

pay = restate.Service("pay")


@pay.handler()
async def charge(ctx: restate.Context, order: dict) -> str:
    return "a" * 1022


app = restate.app([pay])
