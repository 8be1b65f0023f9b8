import { CancelReason } from "@curfew/reason"
import { TunnelCall } from "@curfew/tunnel"

/**
 * Every hop measures the time that a call has left anew, from when the call arrived. So the caller's own timer, which
 * cancels the call, is a little earlier than what is known here as the deadline. Milliseconds.
 */
const hopsApart = 100

/**
 * Why a handler's call was cancelled. A tunnel says it; grpc-js says only that the call is over, so there the call's
 * own deadline tells the one case that a server can know from the other.
 */
export const whyCancelled = (
  call: { readonly getDeadline: () => Date | number },
  now: number
): CancelReason => {
  const told = TunnelCall.reason(call)
  if (told !== undefined) return told
  const deadline = Number(call.getDeadline())
  return deadline - now <= hopsApart
    ? CancelReason.Deadline({ at: deadline, origin: "remote" })
    : CancelReason.ClientGone({ transport: "grpc" })
}
