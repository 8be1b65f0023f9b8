import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { describe, expect, test } from "vitest"
import { runs } from "../../../test/support/seed.ts"
import { CancelCell, CurrentCell, forkCellUnsafe, Interruption, rootsUnsafe } from "../src/CancelCell.ts"
import { CancelReason } from "../src/index.ts"
import { effectiveDeadlineOf, isInside, listenOuter, outerReasonOf } from "../src/Outer.ts"

/** A tree is a list of nodes; each one's parent and outer neighbour, if any, come before it. */
interface Node {
  readonly parent: number | undefined
  readonly outer: number | undefined
}

type Op =
  | { readonly op: "cancel"; readonly node: number }
  | { readonly op: "inherit"; readonly node: number }
  | { readonly op: "move"; readonly node: number; readonly to: number }
  | { readonly op: "unlink"; readonly node: number }
  | { readonly op: "add"; readonly parent: number }

const neighbour = fc.option(fc.nat(), { nil: undefined })
const shape = fc
  .array(fc.record({ parent: neighbour, outer: neighbour }), { minLength: 1, maxLength: 12 })
  .map(
    (nodes): ReadonlyArray<Node> =>
      nodes.map(({ outer, parent }, i) => ({
        parent: i === 0 || parent === undefined ? undefined : parent % i,
        outer: i === 0 || outer === undefined ? undefined : outer % i
      }))
  )
const op: fc.Arbitrary<Op> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ op: fc.constant("cancel" as const), node: fc.nat() }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant("inherit" as const), node: fc.nat() }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant("move" as const), node: fc.nat(), to: fc.nat() }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant("unlink" as const), node: fc.nat() }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant("add" as const), parent: fc.nat() }) }
)
const plan = fc.record({ shape, ops: fc.array(op, { maxLength: 15 }) })

/** The model: plain records, and a cancel that walks over all of them. */
interface Modelled {
  parent: number | undefined
  outer: number | undefined
  linked: boolean
  ended: boolean
  reason: number | undefined
  own: boolean
}

const model = (nodes: ReadonlyArray<Node>) => {
  const all: Array<Modelled> = nodes.map((node) => ({
    ...node,
    linked: node.parent !== undefined,
    ended: false,
    reason: undefined,
    own: false
  }))
  const at = (i: number): Modelled => all[i] as Modelled
  const below = (i: number, top: number): boolean => {
    for (
      let node: number | undefined = i;
      node !== undefined;
      node = at(node).linked ? at(node).parent : undefined
    )
      if (node === top) return true
    return false
  }
  const spread = (i: number, reason: number): void => {
    if (at(i).reason !== undefined) return
    at(i).reason = reason
    for (let j = 0; j < all.length; j++) if (at(j).linked && at(j).parent === i) spread(j, reason)
  }
  /** What hangs below a cell that ends hangs from then on where that cell hung. */
  const end = (i: number): void => {
    const ending = at(i)
    if (ending.ended) return
    ending.ended = true
    const up = ending.linked ? ending.parent : undefined
    for (const child of all) {
      if (!child.linked || child.parent !== i) continue
      child.parent = up
      child.linked = up !== undefined
      child.outer ??= ending.outer
    }
    ending.linked = false
  }
  const outer = (i: number, seen = new Set<number>()): Set<number> => {
    if (seen.has(i)) return seen
    seen.add(i)
    for (const next of [at(i).outer, at(i).parent]) if (next !== undefined) outer(next, seen)
    return seen
  }
  return { all, at, below, end, spread, outer }
}

const play = (nodes: ReadonlyArray<Node>, ops: ReadonlyArray<Op>) => {
  const cells: Array<CancelCell> = []
  for (const { outer, parent } of nodes)
    cells.push(
      new CancelCell("scope", {
        parent: parent === undefined ? undefined : cells[parent],
        outer: outer === undefined ? undefined : cells[outer]
      })
    )
  const heard = cells.map(() => 0)
  cells.forEach((cell, i) => {
    cell.listen(() => {
      heard[i] = (heard[i] ?? 0) + 1
    })
  })
  const m = model(nodes)
  const reasons: Array<CancelReason> = []
  for (const step of ops) {
    const reason = CancelReason.Requested({ message: `${reasons.length}` })
    const number = reasons.push(reason) - 1
    if (step.op === "add") {
      const parent = step.parent % cells.length
      const cell = new CancelCell("task", { parent: cells[parent] })
      cells.push(cell)
      heard.push(0)
      m.all.push({
        parent,
        outer: undefined,
        linked: true,
        ended: false,
        reason: m.at(parent).reason,
        own: false
      })
      const mine = cells.length - 1
      if (cell.reason === undefined)
        cell.listen(() => {
          heard[mine] = (heard[mine] ?? 0) + 1
        })
      else heard[mine] = 1
      continue
    }
    const node = step.node % cells.length
    const cell = cells[node] as CancelCell
    if (step.op === "cancel") {
      const first = m.at(node).reason === undefined
      expect(cell.cancel(reason)).toBe(first)
      if (first) m.at(node).own = true
      m.spread(node, number)
    } else if (step.op === "inherit") {
      cell.inherit(reason)
      m.spread(node, number)
    } else if (step.op === "unlink") {
      cell.unlink()
      m.end(node)
    } else {
      const to = step.to % cells.length
      // A hand-over goes to an owner: not cancelled, and not below what is handed over.
      if (m.at(to).reason !== undefined || m.below(to, node) || m.outer(to).has(node)) continue
      cell.moveTo(cells[to] as CancelCell)
      m.at(node).parent = to
      m.at(node).linked = true
    }
  }
  return { cells, heard, m, reasons }
}

describe("CancelCell against a model of plain records", () => {
  test("L1, L2: the first reason of a cell stays, and reaches all below it and nothing else", () => {
    fc.assert(
      fc.property(plan, ({ ops, shape }) => {
        const { cells, m, reasons } = play(shape, ops)
        cells.forEach((cell, i) => {
          const expected = m.at(i).reason
          expect(cell.reason).toBe(expected === undefined ? undefined : reasons[expected])
          expect(cell.own).toBe(m.at(i).own)
        })
      }),
      runs(500)
    )
  })

  test("a listener is called once, when and only when its cell is cancelled, and is then let go", () => {
    fc.assert(
      fc.property(plan, ({ ops, shape }) => {
        const { cells, heard } = play(shape, ops)
        cells.forEach((cell, i) => {
          expect(heard[i]).toBe(cell.reason === undefined ? 0 : 1)
          if (cell.reason !== undefined) expect(cell.listenerCount).toBe(0)
        })
      }),
      runs(500)
    )
  })

  test("outerReason looks through every parent and outer neighbour, and gives a reason that stands there", () => {
    fc.assert(
      fc.property(plan, ({ ops, shape }) => {
        const { cells, m } = play(shape, ops)
        cells.forEach((cell, i) => {
          const above = [...m.outer(i)].map((j) => cells[j]?.reason).filter((r) => r !== undefined)
          const found = outerReasonOf(cell)
          if (above.length === 0) expect(found).toBeUndefined()
          else expect(above).toContain(found)
          if (cell.reason !== undefined) expect(found).toBe(cell.reason)
        })
      }),
      runs(500)
    )
  })

  test("listenOuter is called at the first cancel above, at most once, and leaves no ear", () => {
    fc.assert(
      fc.property(shape, fc.array(fc.nat(), { maxLength: 6 }), fc.nat(), (nodes, cancels, pick) => {
        const { cells, m } = play(nodes, [])
        const listening = pick % cells.length
        const before = cells.map((cell) => cell.listenerCount)
        const heard: Array<CancelReason> = []
        const remove = listenOuter(cells[listening] as CancelCell, (reason) => heard.push(reason))
        let first: CancelReason | undefined
        for (const at of cancels) {
          const cell = cells[at % cells.length] as CancelCell
          const reason = CancelReason.Requested({ message: `${at}` })
          cell.cancel(reason)
          first ??= outerReasonOf(cells[listening] as CancelCell)
        }
        expect(heard).toEqual(first === undefined ? [] : [first])
        remove()
        cells.forEach((cell, i) => {
          expect(cell.listenerCount).toBe(cell.reason === undefined ? before[i] : 0)
        })
        expect(m.all.length).toBe(cells.length)
      }),
      runs(500)
    )
  })

  test("the effective deadline is the minimum up the parents, and stops at an outer neighbour", () => {
    fc.assert(
      fc.property(shape, fc.array(fc.nat(1000)), (nodes, deadlines) => {
        const { cells, m } = play(nodes, [])
        cells.forEach((cell, i) => {
          cell.deadline = deadlines[i] ?? Number.POSITIVE_INFINITY
        })
        cells.forEach((cell, i) => {
          let expected = Number.POSITIVE_INFINITY
          for (let at: number | undefined = i; at !== undefined; at = m.at(at).parent)
            expected = Math.min(expected, deadlines[at] ?? Number.POSITIVE_INFINITY)
          expect(effectiveDeadlineOf(cell)).toBe(expected)
        })
      }),
      runs(200)
    )
  })
})

describe("CancelCell", () => {
  test("a listener that cancels again, adds and removes changes nothing of the cancel it hears", () => {
    const top = new CancelCell("scope", {})
    const child = new CancelCell("task", { parent: top })
    const heard: Array<string> = []
    const remove = child.listen(() => heard.push("removed"))
    top.listen((reason) => {
      expect(child.reason).toBe(reason)
      expect(top.cancel(CancelReason.Unknown())).toBe(false)
      expect(new CancelCell("task", { parent: top }).reason).toBe(reason)
      remove()
      heard.push("top")
    })
    top.cancel(CancelReason.Superseded())
    expect(heard).toEqual(["top"])
  })

  test("L45: a listener that cancels another cell cancels it within its own call, at any depth of such calls", () => {
    const cells = Array.from({ length: 20_000 }, () => new CancelCell("scope", {}))
    let heard = 0
    cells.forEach((cell, i) => {
      cell.listen((reason) => {
        heard++
        const next = cells[i + 1]
        if (next === undefined) return
        expect(next.cancel(reason)).toBe(true)
        expect(next.reason).toBe(reason)
      })
    })
    cells[0]?.cancel(CancelReason.Superseded())
    expect(heard).toBe(cells.length)
  })

  test("a listener that throws keeps nobody from the cancel, and the canceller gets every error", () => {
    const cell = new CancelCell("scope", {})
    const below = new CancelCell("task", { parent: cell })
    let heard = 0
    const fail = (message: string) => () => {
      throw new Error(message)
    }
    cell.listen(fail("one"))
    below.listen(() => heard++)
    expect(() => cell.cancel(CancelReason.Superseded())).toThrow("one")
    expect([heard, cell.reason, below.reason]).toEqual([
      1,
      CancelReason.Superseded(),
      CancelReason.Superseded()
    ])
    const other = new CancelCell("scope", {})
    other.listen(fail("one"))
    other.listen(fail("two"))
    let thrown: unknown
    try {
      other.cancel(CancelReason.Superseded())
    } catch (error) {
      thrown = error
    }
    expect(thrown).toBeInstanceOf(AggregateError)
    expect((thrown as AggregateError).errors.map((error: Error) => error.message)).toEqual(["one", "two"])
  })

  test("a cell knows whether it stands inside another, through a mask as well", () => {
    const top = new CancelCell("scope", {})
    const behind = new CancelCell("scope", { outer: new CancelCell("task", { parent: top }) })
    const inside = new CancelCell("tasks", { parent: behind })
    expect(isInside(inside, top)).toBe(true)
    expect(isInside(inside, inside)).toBe(true)
    expect(isInside(top, inside)).toBe(false)
    expect(isInside(new CancelCell("owner", {}), top)).toBe(false)
  })

  test("unlink takes the cell out of its parent, and moveTo hangs it with all below under another", () => {
    const one = new CancelCell("tasks", {})
    const two = new CancelCell("owner", {})
    const cell = new CancelCell("task", { parent: one })
    const below = new CancelCell("scope", { parent: cell })
    expect(one.size).toBe(1)
    cell.moveTo(two)
    expect([one.size, two.size]).toEqual([0, 1])
    one.cancel(CancelReason.Superseded())
    expect(below.reason).toBeUndefined()
    two.cancel(CancelReason.Unknown())
    expect(below.reason).toEqual(CancelReason.Unknown())
    cell.unlink()
    // What outlives the cell hangs from then on where the cell hung.
    expect(below.parent).toBe(two)
    below.unlink()
    expect(two.size).toBe(0)
  })

  test("what hangs below a root that ends is a root from then on", () => {
    const top = new CancelCell("owner", {})
    const below = new CancelCell("task", { parent: top })
    expect([rootsUnsafe().includes(top), rootsUnsafe().includes(below)]).toEqual([true, false])
    top.unlink()
    expect([rootsUnsafe().includes(top), rootsUnsafe().includes(below)]).toEqual([false, true])
    below.unlink()
    expect(rootsUnsafe().includes(below)).toBe(false)
  })

  test("a cell that was left behind stands by itself until it ends, and no cancel from above reaches it", () => {
    const top = new CancelCell("tasks", {})
    const left = new CancelCell("task", { parent: top })
    left.abandon()
    expect([top.size, left.parent, left.stuck]).toEqual([0, undefined, true])
    expect(rootsUnsafe().includes(left)).toBe(true)
    left.unlink()
    expect(rootsUnsafe().includes(left)).toBe(false)
    top.cancel(CancelReason.Superseded())
    expect(left.reason).toBeUndefined()
  })

  test("a cell that has ended interrupts nobody any more", () => {
    const cell = new CancelCell("task", {})
    const fiber = Effect.runFork(Effect.never)
    cell.fiber = fiber
    cell.unlink()
    cell.cancel(CancelReason.Superseded())
    expect(fiber.pollUnsafe()).toBeUndefined()
    fiber.interruptUnsafe()
    expect(fiber.pollUnsafe()?._tag).toBe("Failure")
  })

  for (const [what, fields] of [
    ["nothing of how it runs", {}],
    ["not whether it holds an interrupt", { evaluate: () => {} }]
  ] as const) {
    test(`a fiber that shows ${what} is interrupted the public way, once, after the listeners are told`, () => {
      const told: Array<string> = []
      const foreign = {
        interruptible: true,
        _running: false,
        cache: {},
        context: Context.empty(),
        pollUnsafe: () => undefined,
        interruptUnsafe: (_by: undefined, annotations: Context.Context<never>) =>
          told.push(`interrupted: ${Context.getUnsafe(annotations, Interruption)._tag}`),
        ...fields
      }
      const cell = new CancelCell("task", {})
      cell.fiber = foreign as never
      cell.listen(() => told.push("listener"))
      cell.cancel(CancelReason.Superseded())
      expect(told).toEqual(["listener", "interrupted: Superseded"])
      cell.fiber = undefined
      cell.unlink()
    })
  }

  test("work that starts where everything around it has ended may still ask outwards", () => {
    const outside = new CancelCell("scope", {})
    outside.cancel(CancelReason.Superseded())
    const around = new CancelCell("shield", { outer: outside })
    around.unlink()
    const start = Effect.withFiber((fiber) => Effect.sync(() => forkCellUnsafe(fiber, "task")))
    const cell = Effect.runSync(Effect.provideService(start, CurrentCell, around))
    expect([cell.parent, cell.reason, cell.outer]).toEqual([undefined, undefined, around])
    expect(outerReasonOf(cell)).toEqual(CancelReason.Superseded())
    cell.unlink()
    outside.unlink()
  })

  test("clean-up is under way from its beginning on, other work from its cancel on", () => {
    const cleanup = new CancelCell("cleanup", {})
    const task = new CancelCell("task", {})
    expect([typeof cleanup.cleaningFor, task.cleaningFor]).toEqual(["number", undefined])
    task.cancel(CancelReason.Superseded())
    expect(typeof task.cleaningFor).toBe("number")
  })

  test("L45: depth costs no stack", () => {
    const top = new CancelCell("scope", {})
    let bottom = top
    for (let i = 0; i < 100_000; i++) bottom = new CancelCell("scope", { parent: bottom })
    let heard = 0
    listenOuter(bottom, () => heard++)
    top.cancel(CancelReason.Superseded())
    expect(bottom.reason).toEqual(CancelReason.Superseded())
    expect(outerReasonOf(bottom)).toEqual(CancelReason.Superseded())
    expect(effectiveDeadlineOf(bottom)).toBe(Number.POSITIVE_INFINITY)
    expect(heard).toBe(1)
  })
})
