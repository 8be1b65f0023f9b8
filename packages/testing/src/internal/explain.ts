/**
 * Findings put into words.
 *
 * Invariants
 * 1. The number of findings is that of what was broken: none is dropped.
 * 2. Only the first findings are located, up to a limit: asking the engine for places takes time.
 * 3. Where a left fiber was created is seen in one more run, with the first finding of each kind and mode.
 */
import * as Effect from "effect/Effect"
import type { Finding } from "../Finding.ts"
import { located } from "./locate.ts"
import { positionOf } from "./position.ts"
import { record } from "./recorder.ts"
import type { Raw, Sweeping } from "./sweeping.ts"

const mostLocated = 200

/** The findings, without what one more run would tell. */
export const inWords = (raw: ReadonlyArray<Raw>): ReadonlyArray<Finding> =>
  located((locate) =>
    raw.map(({ broken, hit, mode, plan, state, waiting }, index) => {
      const find = index < mostLocated ? locate : () => undefined
      return {
        ...broken,
        step: plan?.at ?? 0,
        second: plan?.second?.after,
        mode,
        state,
        position: hit === undefined ? undefined : positionOf(hit, find),
        waiting: waiting.slice(0, 5).map((capture) => positionOf(capture, find))
      }
    })
  )

/** The findings, and for those that leave fibers behind where these were created. */
export const explain = <E2>(
  raw: ReadonlyArray<Raw>,
  self: Sweeping<E2>
): Effect.Effect<ReadonlyArray<Finding>, E2> =>
  Effect.gen(function* () {
    if (raw.length === 0) return []
    const findings = [...inWords(raw)]
    const asked = new Set<string>()
    for (const [index, finding] of findings.entries()) {
      const captures = raw[index]?.waiting ?? []
      const key = `${finding.kind} ${finding.mode}`
      if (finding.state !== "fresh" || captures.length === 0 || asked.has(key)) continue
      asked.add(key)
      const { fibers } = yield* record<E2>(self.subject, self.context, self.stage, finding, self.cancel)
      const forkedAt = new Map(fibers.map((fiber) => [fiber.index, fiber.forkedAt]))
      findings[index] = {
        ...finding,
        waiting: finding.waiting.map((position, i) => {
          const fiber = captures[i]?.record
          return fiber?.phase === "run" ? { ...position, forkedAt: forkedAt.get(fiber.index) } : position
        })
      }
    }
    return findings
  })
