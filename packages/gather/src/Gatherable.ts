import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"

/**
 * An item of a gather: work, or a hole that stays where it is.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type Item =
  | Effect.Effect<unknown, unknown, never>
  | Option.Option<Effect.Effect<unknown, unknown, never>>
  | null
  | undefined

// biome-ignore lint/suspicious/noExplicitAny: the services of the items are read off by inference.
type AnyItem = Effect.Effect<any, any, any> | Option.Option<Effect.Effect<any, any, any>> | null | undefined

/**
 * What `gather` takes: a tuple, a record or an iterable of items.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type Gatherable = ReadonlyArray<AnyItem> | Iterable<AnyItem> | Readonly<Record<string, AnyItem>>

/**
 * `Gatherable` as the constraint of a type: records may be interfaces, which have no index signature.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type GatherableLike<G> =
  | ReadonlyArray<AnyItem>
  | Iterable<AnyItem>
  | { readonly [K in keyof G]: AnyItem }

/**
 * Refuses a single item, which is an iterable as well and would be taken for a collection.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type NoItem<G> = [G] extends [AnyItem] ? never : unknown

// An `Option.none()` written in place of an item is inferred with `any` throughout: it holds nothing.
type UnlessAny<R, T> = 0 extends 1 & R ? never : T
type SuccessIn<W> = W extends Effect.Effect<infer A, infer _E, infer R> ? UnlessAny<R, A> : never
type ErrorIn<W> = W extends Effect.Effect<infer _A, infer E, infer R> ? UnlessAny<R, E> : never
type ServicesIn<W> = W extends Effect.Effect<infer _A, infer _E, infer R> ? UnlessAny<R, R> : never

type Result<I> =
  I extends Effect.Effect<infer A, infer _E, infer _R>
    ? A
    : I extends Option.Option<infer W>
      ? Option.Option<SuccessIn<W>>
      : I

/**
 * What `gather` gives: the same shape with the results in place.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type Gathered<G> =
  G extends ReadonlyArray<unknown>
    ? { -readonly [K in keyof G]: Result<G[K]> }
    : G extends Iterable<infer I>
      ? Array<Result<I>>
      : { -readonly [K in keyof G]: Result<G[K]> }

type ItemOf<G> = G extends Iterable<infer I> ? I : G[keyof G]

/**
 * The errors of the items.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type ErrorOf<G> =
  ItemOf<G> extends infer I
    ? I extends Effect.Effect<infer _A, infer E, infer _R>
      ? E
      : I extends Option.Option<infer W>
        ? ErrorIn<W>
        : never
    : never

/**
 * The services of the items.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type ServicesOf<G> =
  ItemOf<G> extends infer I
    ? I extends Effect.Effect<infer _A, infer _E, infer R>
      ? R
      : I extends Option.Option<infer W>
        ? ServicesIn<W>
        : never
    : never
