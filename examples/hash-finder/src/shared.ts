/** The places in the memory that the server shares with a worker. */

/** Not 0: the worker ends its job after the batch that it is in. Set by the server. */
export const stop = 0

/** How many hashes of its job the worker has done. Set by the worker. */
export const tried = 1

export const makeShared = (): Int32Array => new Int32Array(new SharedArrayBuffer(8))
