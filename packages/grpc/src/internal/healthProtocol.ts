/**
 * The messages of `grpc.health.v1`, written by hand: two fields and an enumeration.
 *
 * Invariants
 * 1. Fields that are not known are skipped, as protobuf demands; a message that breaks off is an error.
 * 2. Both directions are here, so that the definition serves a client as well.
 */

const statuses = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"] as const

interface CheckRequest {
  readonly service: string
}

interface CheckResponse {
  readonly status: string
}

interface ListResponse {
  readonly statuses: ReadonlyArray<readonly [service: string, status: string]>
}

class Reader {
  readonly #bytes: Buffer
  at = 0
  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  get more(): boolean {
    return this.at < this.#bytes.length
  }

  varint(): number {
    let value = 0
    let scale = 1
    for (;;) {
      const byte = this.#bytes[this.at++]
      if (byte === undefined) throw new RangeError("The message breaks off.")
      value += (byte & 0x7f) * scale
      if (byte < 0x80) return value
      scale *= 128
    }
  }

  bytes(): Buffer {
    return this.#take(this.varint())
  }

  #take(length: number): Buffer {
    const end = this.at + length
    if (end > this.#bytes.length) throw new RangeError("The message breaks off.")
    const taken = this.#bytes.subarray(this.at, end)
    this.at = end
    return taken
  }

  skip(wire: number): void {
    if (wire === 0) this.varint()
    else if (wire === 1) this.#take(8)
    else if (wire === 2) this.bytes()
    else if (wire === 5) this.#take(4)
    else throw new RangeError(`Wire type ${wire} is not known.`)
  }
}

/** Calls back for the fields that are wanted, by `number * 8 + wire type`. */
const fields = (bytes: Buffer, wanted: Readonly<Record<number, (reader: Reader) => void>>): void => {
  const reader = new Reader(bytes)
  while (reader.more) {
    const tag = reader.varint()
    const take = wanted[tag]
    if (take === undefined) reader.skip(tag % 8)
    else take(reader)
  }
}

const varint = (value: number): Buffer => {
  const out: Array<number> = []
  let rest = value
  while (rest > 127) {
    out.push((rest % 128) | 0x80)
    rest = Math.floor(rest / 128)
  }
  out.push(rest)
  return Buffer.from(out)
}

const field = (number: number, content: Buffer): Buffer =>
  Buffer.concat([Buffer.from([number * 8 + 2]), varint(content.length), content])

const encodeRequest = ({ service }: CheckRequest): Buffer =>
  service === "" ? Buffer.alloc(0) : field(1, Buffer.from(service))

const decodeRequest = (bytes: Buffer): CheckRequest => {
  let service = ""
  fields(bytes, {
    10: (reader) => {
      service = reader.bytes().toString()
    }
  })
  return { service }
}

const encodeResponse = ({ status }: CheckResponse): Buffer => {
  const number = statuses.indexOf(status as (typeof statuses)[number])
  return number <= 0 ? Buffer.alloc(0) : Buffer.from([8, number])
}

const decodeResponse = (bytes: Buffer): CheckResponse => {
  let number = 0
  fields(bytes, {
    8: (reader) => {
      number = reader.varint()
    }
  })
  return { status: statuses[number] ?? "UNKNOWN" }
}

const encodeList = ({ statuses }: ListResponse): Buffer =>
  Buffer.concat(
    statuses.map(([service, status]) =>
      field(1, Buffer.concat([field(1, Buffer.from(service)), field(2, encodeResponse({ status }))]))
    )
  )

const decodeList = (bytes: Buffer): ListResponse => {
  const statuses: Array<readonly [string, string]> = []
  fields(bytes, {
    10: (reader) => {
      let service = ""
      let status = "UNKNOWN"
      fields(reader.bytes(), {
        10: (entry) => {
          service = entry.bytes().toString()
        },
        18: (entry) => {
          status = decodeResponse(entry.bytes()).status
        }
      })
      statuses.push([service, status])
    }
  })
  return { statuses }
}

export const definition = {
  Check: {
    path: "/grpc.health.v1.Health/Check",
    requestStream: false,
    responseStream: false,
    requestSerialize: encodeRequest,
    requestDeserialize: decodeRequest,
    responseSerialize: encodeResponse,
    responseDeserialize: decodeResponse
  },
  Watch: {
    path: "/grpc.health.v1.Health/Watch",
    requestStream: false,
    responseStream: true,
    requestSerialize: encodeRequest,
    requestDeserialize: decodeRequest,
    responseSerialize: encodeResponse,
    responseDeserialize: decodeResponse
  },
  List: {
    path: "/grpc.health.v1.Health/List",
    requestStream: false,
    responseStream: false,
    requestSerialize: (_request: Record<string, never>) => Buffer.alloc(0),
    requestDeserialize: (_bytes: Buffer): Record<string, never> => ({}),
    responseSerialize: encodeList,
    responseDeserialize: decodeList
  }
} as const
