/** The service as connect-es wants it: with a schema, made here from its descriptor instead of generated. */
import {
  create,
  createFileRegistry,
  type DescMethodBiDiStreaming,
  type DescMethodServerStreaming,
  type DescMethodUnary
} from "@bufbuild/protobuf"
import {
  type BytesValue,
  BytesValueSchema,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
  file_google_protobuf_wrappers
} from "@bufbuild/protobuf/wkt"

type Schema = typeof BytesValueSchema

const type = ".google.protobuf.BytesValue"

const file = create(FileDescriptorProtoSchema, {
  name: "curfew/bench.proto",
  package: "curfew.bench",
  syntax: "proto3",
  dependency: ["google/protobuf/wrappers.proto"],
  service: [
    {
      name: "Echo",
      method: [
        { name: "Unary", inputType: type, outputType: type },
        { name: "Many", inputType: type, outputType: type, serverStreaming: true },
        { name: "Talk", inputType: type, outputType: type, clientStreaming: true, serverStreaming: true }
      ]
    }
  ]
})

const found = createFileRegistry(
  create(FileDescriptorSetSchema, { file: [file_google_protobuf_wrappers.proto, file] })
).getService("curfew.bench.Echo")

if (found === undefined) throw new Error("The service is not in its own descriptor.")

const { methods } = found
const [unary, many, talk] = methods as never as [
  DescMethodUnary<Schema, Schema>,
  DescMethodServerStreaming<Schema, Schema>,
  DescMethodBiDiStreaming<Schema, Schema>
]

export const echo = { ...found, method: { unary, many, talk } }

export const message = (bytes: Uint8Array): BytesValue => create(BytesValueSchema, { value: bytes })
