import { fileURLToPath } from "node:url"

/** The directory of the proto file, for tools that want it. */
export const protoDirectory = fileURLToPath(new URL("../../proto", import.meta.url))
export const protoFile = "hash_finder.proto"
