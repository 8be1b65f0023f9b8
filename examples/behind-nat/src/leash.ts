/** Loaded into each program of the demonstration: it ends in order when the demonstration has gone, however it went. */
process.stdin.on("close", () => process.kill(process.pid, "SIGTERM")).resume()
// The pipe keeps no program up.
if ("unref" in process.stdin) process.stdin.unref()
