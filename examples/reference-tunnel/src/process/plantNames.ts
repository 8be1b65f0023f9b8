/** The faults that can be planted. */
export const plants = ["fiber", "stream", "error"] as const
export type Plant = (typeof plants)[number]
