/**
 * Counting open calls from outside the code that makes or handles them.
 *
 * Invariants
 * 1. A client call is open from its start to its status; grpc-js reports exactly one.
 * 2. A server call is open from its start to `onCancel`, which grpc-js calls at the end of every call, also after a
 *    success.
 */
import {
  InterceptingCall,
  type Interceptor,
  ListenerBuilder,
  RequesterBuilder,
  ResponderBuilder,
  ServerInterceptingCall,
  type ServerInterceptor,
  ServerListenerBuilder
} from "@grpc/grpc-js"
import type { Meter } from "../process/Meter.ts"

export const countCalls =
  (meter: Meter): Interceptor =>
  (options, nextCall) =>
    new InterceptingCall(
      nextCall(options),
      new RequesterBuilder()
        .withStart((metadata, _listener, next) => {
          meter.openStreams++
          const onStatus = new ListenerBuilder().withOnReceiveStatus((status, pass) => {
            meter.openStreams--
            pass(status)
          })
          next(metadata, onStatus.build())
        })
        .build()
    )

export const countHandled =
  (meter: Meter): ServerInterceptor =>
  (_method, call) =>
    new ServerInterceptingCall(
      call,
      new ResponderBuilder()
        .withStart((next) => {
          meter.openStreams++
          next(new ServerListenerBuilder().withOnCancel(() => void meter.openStreams--).build())
        })
        .build()
    )
