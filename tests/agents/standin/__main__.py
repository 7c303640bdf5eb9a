"""Runs the stand-in until it is ended."""

import argparse

from .server import serve

parser = argparse.ArgumentParser(prog="standin", description="A stand-in model server on loopback.")
parser.add_argument("--port", type=int, default=0, help="the port; 0, the default, takes a free one")
parser.add_argument("--log", type=argparse.FileType("a"), help="a file for one line per request")
given = parser.parse_args()
server = serve(given.port, given.log)
print(f"http://127.0.0.1:{server.server_port}", flush=True)
try:
    server.serve_forever()
except KeyboardInterrupt:
    pass
