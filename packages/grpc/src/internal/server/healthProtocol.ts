/**
 * The messages of `grpc.health.v1`: two fields and an enumeration.
 *
 * Invariants
 * 1. Fields that are not known are skipped, as protobuf demands; a message that breaks off is an error.
 * 2. Both directions are here, so that the definition serves a client as well.
 */
import protobuf from "protobufjs/minimal.js"

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

/** Calls back for each field, which reads what it knows and leaves the rest to be skipped. */
const fields = (reader: protobuf.Reader, end: number, known: (tag: number) => boolean): void => {
  while (reader.pos < end) {
    const tag = reader.uint32()
    if (!known(tag)) reader.skipType(tag & 7)
  }
}

// Field number and wire type.
const first = 0x0a
const second = 0x12
const firstNumber = 0x08

const bytesOf = (writer: protobuf.Writer): Buffer => Buffer.from(writer.finish())

const encodeRequest = ({ service }: CheckRequest): Buffer => {
  const writer = protobuf.Writer.create()
  return bytesOf(service === "" ? writer : writer.uint32(first).string(service))
}

const decodeRequest = (bytes: Buffer): CheckRequest => {
  const reader = protobuf.Reader.create(bytes)
  let service = ""
  fields(reader, reader.len, (tag) => {
    if (tag !== first) return false
    service = reader.string()
    return true
  })
  return { service }
}

const encodeResponse = ({ status }: CheckResponse): Buffer => {
  const number = statuses.indexOf(status as (typeof statuses)[number])
  const writer = protobuf.Writer.create()
  return bytesOf(number <= 0 ? writer : writer.uint32(firstNumber).int32(number))
}

const decodeResponse = (bytes: Uint8Array): CheckResponse => {
  const reader = protobuf.Reader.create(bytes)
  let number = 0
  fields(reader, reader.len, (tag) => {
    if (tag !== firstNumber) return false
    number = reader.int32()
    return true
  })
  return { status: statuses[number] ?? "UNKNOWN" }
}

const encodeList = ({ statuses }: ListResponse): Buffer => {
  const writer = protobuf.Writer.create()
  for (const [service, status] of statuses) {
    writer.uint32(first).fork().uint32(first).string(service)
    writer.uint32(second).bytes(encodeResponse({ status })).ldelim()
  }
  return bytesOf(writer)
}

const decodeList = (bytes: Buffer): ListResponse => {
  const reader = protobuf.Reader.create(bytes)
  const found: Array<readonly [string, string]> = []
  fields(reader, reader.len, (tag) => {
    if (tag !== first) return false
    const end = reader.uint32() + reader.pos
    let service = ""
    let status = "UNKNOWN"
    fields(reader, end, (inner) => {
      if (inner === first) service = reader.string()
      else if (inner === second) status = decodeResponse(reader.bytes()).status
      else return false
      return true
    })
    found.push([service, status])
    return true
  })
  return { statuses: found }
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
