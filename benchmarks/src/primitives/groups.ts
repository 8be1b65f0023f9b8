import type { Primitive } from "./primitive.ts"

/** The rows, by package; a process loads those of one. */
export const groups: Readonly<Record<string, () => Promise<ReadonlyArray<Primitive>>>> = {
  reason: async () => (await import("./rows/reason.ts")).rows,
  scope: async () => (await import("./rows/scope.ts")).rows,
  limits: async () => (await import("./rows/limits.ts")).rows,
  shield: async () => (await import("./rows/shield.ts")).rows,
  guard: async () => (await import("./rows/guard.ts")).rows,
  gather: async () => (await import("./rows/gather.ts")).rows,
  singleflight: async () => (await import("./rows/singleflight.ts")).rows,
  request: async () => (await import("./rows/request.ts")).rows,
  promise: async () => (await import("./rows/promise.ts")).rows,
  scenes: async () => (await import("./rows/scenes.ts")).rows
}
