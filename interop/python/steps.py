"""The Python end of the seven steps: a tunnel server with one slow unary method.

Forward: a network server that prints "port N". Reverse, with CURFEW_ADDRESS: it dials, and dials again whenever its
tunnel has ended. For each line on its standard input it prints one line of counts; it ends with its standard input.
"""

import asyncio
import json
import logging
import os
import sys

from grpc import aio
from grpctunnel import ReverseTunnelServer, TunnelServiceHandler
from grpctunnel.proto.v1.tunnel_pb2_grpc import TunnelServiceStub, add_TunnelServiceServicer_to_server

METHOD = "grpchantesting.TestService/Unary"
logging.basicConfig(level=logging.WARNING)
counts = {"started": 0, "told": 0, "completed": 0}


async def unary(request: bytes, context) -> bytes:
    """Works on for a while, whether or not its caller is still there, and notices when it is told."""
    counts["started"] += 1
    wait = getattr(context, "wait_for_cancellation", asyncio.Event().wait)
    told = asyncio.create_task(wait())
    # The message has one field, a number of two bytes.
    await asyncio.sleep(((request[1] & 127) | (request[2] << 7)) / 1000)
    if told.done():
        counts["told"] += 1
    told.cancel()
    counts["completed"] += 1
    return b""


async def agent(address: str) -> None:
    while True:
        async with aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            server = ReverseTunnelServer(TunnelServiceStub(channel))
            server.register_method(METHOD, unary)
            try:
                await server.serve()
            except Exception:
                # How a tunnel ends is no error of the program's.
                pass
        await asyncio.sleep(0.02)


async def main() -> None:
    address = os.environ.get("CURFEW_ADDRESS")
    if address is None:
        handler = TunnelServiceHandler()
        handler.register_method(METHOD, unary)
        server = aio.server()
        add_TunnelServiceServicer_to_server(handler.service(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        print(f"port {port}", flush=True)
    else:
        dialling = asyncio.create_task(agent(address))
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        print("counts " + json.dumps({**counts, "tasks": len(asyncio.all_tasks())}), flush=True)
    os._exit(0)


asyncio.run(main())
