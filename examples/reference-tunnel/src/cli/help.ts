import { plants } from "../process/plantNames.ts"
import { usual } from "./parseArguments.ts"

/** What `--help` prints. */
export const help = `The reference tunnel: a client calls a hash finder through a gateway, a reverse tunnel and an agent, and leaves in
different ways. You see who left and why, what was closed in which order, and that nothing stays behind.

  npm run reference                       run the scenario, show it, stay up; Ctrl-C shuts down in stages, again to hurry
  npm run reference -- --once             run the scenario and end; the last line is JSON, the exit code tells whether all is well
      --plant=${plants.join("|").padEnd(23)} with --once: plant a fault that the measurement has to find
      --port=N                    the port for callers; default: a free one

Each part by hand, in a terminal of its own:

  npm run reference -- backend            the hash finder           --port=${usual.backend}
  npm run reference -- gateway            takes calls and agents    --port=${usual.gateway} --tunnel-port=${usual.tunnel}
  npm run reference -- agent              opens the reverse tunnel  --gateway=127.0.0.1:${usual.tunnel} --backend=127.0.0.1:${usual.backend}
  npm run reference -- call               a client; Ctrl-C leaves   --gateway=127.0.0.1:${usual.gateway} --word=cat --distance=1
      --range                     stream the matches of many byte strings: --count=N of them, or all there are
      --timeout=MS                with a deadline
      --max-hashes=N              with a limit at which the server ends the call

Exit codes: 0 as it should be, 1 not so, 2 a mistake on the command line, 130 left by Ctrl-C.`
