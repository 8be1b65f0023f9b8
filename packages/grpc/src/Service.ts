import type {
  handleBidiStreamingCall,
  handleClientStreamingCall,
  handleServerStreamingCall,
  handleUnaryCall,
  MethodDefinition,
  ServiceDefinition,
  UntypedServiceImplementation
} from "@grpc/grpc-js"

/**
 * The four kinds of method.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type MethodKind = "unary" | "serverStream" | "clientStream" | "bidi"

/**
 * What a method takes and gives.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface Method<Kind extends MethodKind, Request, Response> {
  readonly kind: Kind
  readonly request: Request
  readonly response: Response
}

type KindOf<RequestStream, ResponseStream> = RequestStream extends true
  ? ResponseStream extends true
    ? "bidi"
    : "clientStream"
  : ResponseStream extends true
    ? "serverStream"
    : "unary"

/**
 * The method behind one entry of a definition. Where generated types leave open whether a side streams (`boolean`), as
 * proto-loader's do, the kind is the union of all four: name the handlers' type as well, see {@link MethodsOfHandlers}.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type MethodOf<D> =
  D extends MethodDefinition<infer Request, infer Response>
    ? Method<KindOf<D["requestStream"], D["responseStream"]>, Request, Response>
    : never

/**
 * The method behind one grpc-js handler type.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type MethodOfHandler<H> =
  H extends handleUnaryCall<infer Request, infer Response>
    ? Method<"unary", Request, Response>
    : H extends handleClientStreamingCall<infer Request, infer Response>
      ? Method<"clientStream", Request, Response>
      : H extends handleServerStreamingCall<infer Request, infer Response>
        ? Method<"serverStream", Request, Response>
        : H extends handleBidiStreamingCall<infer Request, infer Response>
          ? Method<"bidi", Request, Response>
          : never

/**
 * The method behind one entry of a definition as its client sees it: what the serializer of requests takes, and what
 * the deserializer of responses gives. proto-loader has different types for the two directions.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type ClientMethodOf<D> = D extends {
  readonly requestSerialize: (value: infer Request) => Buffer
  readonly responseDeserialize: (bytes: Buffer) => infer Response
  readonly requestStream: infer RequestStream
  readonly responseStream: infer ResponseStream
}
  ? Method<KindOf<RequestStream, ResponseStream>, Request, Response>
  : never

/**
 * The methods of a definition whose types say which sides stream: those of ts-proto, of grpc-tools' type generators,
 * and of definitions written `as const`.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type MethodsOf<D extends ServiceDefinition> = { readonly [K in keyof D]: MethodOf<D[K]> }

/**
 * The methods of a type of grpc-js handlers, such as the `…Handlers` that proto-loader generates.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type MethodsOfHandlers<H extends UntypedServiceImplementation> = {
  readonly [K in keyof H as string extends K ? never : K]: MethodOfHandler<H[K]>
}
