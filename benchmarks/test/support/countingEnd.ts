import { answer } from "../../src/harness/child.ts"

let count = 0

answer({
  add: (by: number) => {
    count += by
    return count
  },
  fail: () => {
    throw new Error("as it was asked to")
  },
  exit: () => process.exit(3)
})
