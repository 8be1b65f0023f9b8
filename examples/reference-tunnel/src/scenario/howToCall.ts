import { join, relative } from "node:path"
import { protoDirectory, protoFile } from "../grpc/protoPath.ts"

/** How to call the hash finder through the tunnel from outside, with standard tools and with what is here. */
export const howToCall = (port: number): ReadonlyArray<string> => {
  // npm runs a script in the directory of its package.json, and says where it was called.
  const directory = relative(process.env["INIT_CWD"] ?? process.cwd(), protoDirectory) || "."
  return [
    "",
    `The gateway takes calls on 127.0.0.1:${port}. What you do shows up below. Call it from another terminal:`,
    "",
    `  npm run reference -- call --gateway=127.0.0.1:${port} --word=cat`,
    `  npm run reference -- call --gateway=127.0.0.1:${port} --word=leave --range --distance=1      (Ctrl-C leaves)`,
    `  grpcurl -plaintext -import-path ${directory} -proto ${protoFile} -d '{"word":"cat","distance":1}' \\`,
    `    127.0.0.1:${port} curfew.example.v1.HashFinder/Find`,
    "",
    "or from Node, in a file there.mjs here, run from here with: node there.mjs",
    "",
    `  import { credentials, loadPackageDefinition } from "@grpc/grpc-js"`,
    `  import { loadSync } from "@grpc/proto-loader"`,
    `  const file = ${JSON.stringify(join(directory, protoFile))}`,
    `  const { HashFinder } = loadPackageDefinition(loadSync(file)).curfew.example.v1`,
    `  const stub = new HashFinder("127.0.0.1:${port}", credentials.createInsecure())`,
    `  stub.Find({ word: "cat", distance: 1 }, (error, answer) => { console.log(error ?? answer); stub.close() })`,
    "",
    "Ctrl-C shuts down in stages; again to go on to the next stage."
  ]
}
