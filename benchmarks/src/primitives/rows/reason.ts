import {
  awaitCancellation,
  CancelReason,
  currentReason,
  fromCause,
  isCancelled,
  outerReason,
  ownCancellation,
  ownInterrupt,
  toCause
} from "@curfew/reason"
import { CancelScope } from "@curfew/scope"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { effects } from "../batches.ts"
import { ours, type Primitive, raw } from "../primitive.ts"

/** What a program without Curfew would keep its reasons in. */
const Cell = Context.Reference<{ readonly reason: CancelReason | undefined } | undefined>("benchmarks/Cell", {
  defaultValue: () => undefined
})

/** In a scope: that is where these questions are asked. */
const scoped = <E, R>(work: Effect.Effect<void, E, R>) => CancelScope.run(() => work)
const withCell = <E, R>(work: Effect.Effect<void, E, R>) =>
  Effect.provideService(work, Cell, { reason: undefined })

const probe: Effect.Effect<Cause.Cause<never> | undefined> = Effect.matchCause(
  Effect.interruptible(Effect.void),
  { onFailure: (cause): Cause.Cause<never> | undefined => cause, onSuccess: () => undefined }
)

const asked: Effect.Effect<Option.Option<CancelReason>> = Effect.withFiber((fiber) => {
  const reason = fiber.getRef(Cell)?.reason
  if (reason !== undefined) return Effect.succeed(Option.some(reason))
  return Effect.map(probe, (cause) =>
    cause === undefined ? Option.none() : Option.some(CancelReason.Unknown())
  )
})

const isNone = (value: Option.Option<unknown>): boolean => value._tag === "None"
const done = Exit.succeed(1)
const told = CancelReason.Requested({ message: "told" })

class Told extends Context.Service<Told, CancelReason>()("benchmarks/Told") {}

const annotations = Context.make(Told, told)

const annotated = (): Cause.Cause<never> => Cause.annotate(Cause.interrupt(), annotations)

const read = (cause: Cause.Cause<unknown>): CancelReason | undefined => {
  for (const reason of cause.reasons)
    if (reason._tag === "Interrupt") return reason.annotations.get(Told.key) as CancelReason | undefined
  return undefined
}

/** Waits for a cancel in a mask, as clean-up does, and hears why it came. */
const heard = (wait: Effect.Effect<CancelReason>) => {
  let why: CancelReason | undefined
  const waiting = Effect.uninterruptible(
    Effect.map(wait, (reason) => {
      why = reason
    })
  )
  return effects(
    () =>
      Effect.flatMap(Effect.forkChild(waiting, { startImmediately: true }), (fiber) => {
        why = undefined
        return Effect.andThen(Fiber.interrupt(fiber), Fiber.await(fiber))
      }),
    (exit) => exit._tag === "Failure" && why?._tag === "Unknown"
  )
}

const rawReason = "a reference, and a probe for an interrupt"

export const rows: ReadonlyArray<Primitive> = [
  {
    row: "reason: currentReason",
    ours: ours(() => effects(() => currentReason, isNone, scoped)),
    peers: [raw(rawReason, () => effects(() => asked, isNone, withCell))]
  },
  {
    row: "reason: outerReason",
    ours: ours(() => effects(() => outerReason, isNone, scoped)),
    peers: [raw(rawReason, () => effects(() => asked, isNone, withCell))]
  },
  {
    row: "reason: isCancelled",
    ours: ours(() =>
      effects(
        () => isCancelled,
        (is) => !is,
        scoped
      )
    ),
    peers: [
      raw(rawReason, () => {
        const is = Effect.map(asked, Option.isSome)
        return effects(
          () => is,
          (cancelled) => !cancelled,
          withCell
        )
      })
    ]
  },
  {
    row: "reason: ownInterrupt",
    ours: ours(() =>
      effects(
        () => ownInterrupt,
        (cause) => cause === undefined,
        scoped
      )
    ),
    peers: [
      raw("matchCause of an interruptible void", () =>
        effects(
          () => probe,
          (cause) => cause === undefined,
          withCell
        )
      )
    ]
  },
  {
    row: "reason: ownCancellation of a success",
    ours: ours(() => effects(() => ownCancellation(done), isNone, scoped)),
    peers: [
      raw("Cause.hasInterrupts", () =>
        effects(
          () =>
            Exit.isSuccess(done) || !Cause.hasInterrupts((done as Exit.Failure<unknown, unknown>).cause)
              ? Effect.succeedNone
              : Effect.map(probe, Option.fromUndefinedOr),
          isNone,
          withCell
        )
      )
    ]
  },
  {
    row: "reason: awaitCancellation, cancelled",
    ours: ours(() => heard(awaitCancellation)),
    peers: [
      raw("forkChild of a recovered never, Fiber.interrupt", () =>
        heard(
          Effect.matchCauseEffect(Effect.interruptible(Effect.never), {
            onFailure: () => Effect.succeed(CancelReason.Unknown()),
            onSuccess: () => Effect.succeed(CancelReason.Unknown())
          })
        )
      )
    ]
  },
  {
    row: "reason: toCause and fromCause",
    ours: ours(() =>
      effects(
        () => Effect.sync(() => fromCause(toCause(told))),
        (reason) => Option.isSome(reason) && reason.value === told
      )
    ),
    peers: [
      raw("Cause.annotate, and its annotation", () =>
        effects(
          () => Effect.sync(() => Option.fromUndefinedOr(read(annotated()))),
          (reason) => Option.isSome(reason) && reason.value === told
        )
      )
    ]
  }
]
