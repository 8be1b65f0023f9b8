/**
 * The node of a tunnel in the live tree, below which its streams stand.
 *
 * **Invariants**
 * 1. Whoever looks at what hangs below it finds every stream of the tunnel. Until then a stream costs no cell: nothing
 *    comes down to it through the tree, since its tunnel closes it.
 */
import { CancelCell } from "@curfew/reason/CancelCell"
import type { Held } from "./held.ts"

export class StreamsCell extends CancelCell {
  held: Held | undefined

  override reveal(): void {
    if (this.held !== undefined) for (const stream of [...this.held.holders]) stream.show()
  }
}
