/** The processes of the scenario, in the order in which a call passes through them. */
export const lanes = ["client", "gateway", "agent", "backend"] as const
export type Lane = (typeof lanes)[number]

/** What kind of thing happened: it decides the symbol and the colour. */
export type Mark = "step" | "note" | "start" | "data" | "cancel" | "cleanup" | "end" | "fault"

/** One thing that happened in one process. Plain data: it crosses from process to process as JSON. */
export interface TimelineEvent {
  /** Milliseconds since 1970, with fractions. */
  readonly at: number
  readonly lane: Lane
  readonly mark: Mark
  /** The call it belongs to, by the label that the client gave it. */
  readonly call?: string | undefined
  /** The tunnel stream it belongs to. Both ends of a tunnel use the same number. */
  readonly stream?: number | undefined
  readonly text: string
  /** How long it took, in milliseconds. */
  readonly took?: number | undefined
}

/** What a program says; the process adds time and lane. */
export type Said = Omit<TimelineEvent, "at" | "lane">
