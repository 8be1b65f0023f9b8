import { cpus, loadavg, totalmem } from "node:os"

/** What the run ran on, and how busy that was already. */
export const machine = (): string => {
  const all = cpus()
  const memory = (totalmem() / 2 ** 30).toFixed(0)
  const load = loadavg().map((value) => value.toFixed(2))
  return `${all.length} × ${all[0]?.model.trim() ?? "an unknown processor"}, ${memory} GiB, ${process.platform} ${process.arch}, Node ${process.version}, load ${load.join(" ")}`
}
