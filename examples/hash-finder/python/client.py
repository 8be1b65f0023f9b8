"""A stock grpcio client: one call, until it is answered or Ctrl-C cancels it.

It needs the modules that protoc makes of ../proto/hash_finder.proto, see the README.
"""

import argparse
import signal
import sys

import grpc

import hash_finder_pb2
import hash_finder_pb2_grpc

flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
flags.add_argument("--server", default="127.0.0.1:50051")
flags.add_argument("--name", default="curfew")
flags.add_argument("--ideal", type=int, default=0)
flags.add_argument("--interesting", type=int, default=1)
flags.add_argument("--stream", action="store_true")
args = flags.parse_args()

query = hash_finder_pb2.Query(
    desired_name=args.name,
    ideal_distance=args.ideal,
    interesting_distance=args.interesting,
)


def show(found):
    print(f'distance {found.distance}  {found.hash}  is the hash of "{found.secret}"', flush=True)


with grpc.insecure_channel(args.server) as channel:
    finder = hash_finder_pb2_grpc.HashFinderStub(channel)
    # A future, or a stream that is one, too: both are cancelled alike.
    call = finder.FindEach(query) if args.stream else finder.Find.future(query)
    signal.signal(signal.SIGINT, lambda *_: call.cancel())
    print("Ctrl-C cancels the call", flush=True)
    try:
        if args.stream:
            for found in call:
                show(found)
        else:
            show(call.result())
    except grpc.FutureCancelledError:
        print("The future was cancelled")
        sys.exit(130)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.CANCELLED:
            print("The stream was cancelled")
            sys.exit(130)
        print(f"The call ended with {error.code().name}: {error.details()}")
        sys.exit(1)
