import type { Owner } from "@curfew/scope"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { describe, expectTypeOf, test } from "vitest"
import { type ChildCancelled, gather } from "../src/index.ts"

class A extends Context.Service<A, 1>()("test/A") {}
class B extends Context.Service<B, 2>()("test/B") {}

const number: Effect.Effect<number> = Effect.succeed(1)
const string: Effect.Effect<string, "e1", A> = Effect.as(A, "a")
const failing: Effect.Effect<never, "e2", B> = Effect.andThen(B, Effect.fail("e2" as const))

describe("the types of gather", () => {
  test("a tuple gives a tuple, with its errors and services joined", () => {
    expectTypeOf(gather([Effect.succeed(1), Effect.succeed("a")])).toEqualTypeOf<
      Effect.Effect<[number, string], ChildCancelled>
    >()
    expectTypeOf(gather([number, string, failing])).toEqualTypeOf<
      Effect.Effect<[number, string, never], "e1" | "e2" | ChildCancelled, A | B>
    >()
    expectTypeOf(gather([])).toEqualTypeOf<Effect.Effect<[], ChildCancelled>>()
    const fixed = [number, string] as const
    expectTypeOf(gather(fixed)).toEqualTypeOf<Effect.Effect<[number, string], "e1" | ChildCancelled, A>>()
  })

  test("an array gives an array", () => {
    const items: Array<Effect.Effect<number, "e">> = []
    expectTypeOf(gather(items)).toEqualTypeOf<Effect.Effect<Array<number>, "e" | ChildCancelled>>()
    const frozen: ReadonlyArray<Effect.Effect<number, "e">> = []
    expectTypeOf(gather(frozen)).toEqualTypeOf<Effect.Effect<Array<number>, "e" | ChildCancelled>>()
    expectTypeOf(gather([number, ...items])).toEqualTypeOf<
      Effect.Effect<[number, ...Array<number>], "e" | ChildCancelled>
    >()
  })

  test("a union of items gives a union of results", () => {
    const items: Array<Effect.Effect<number, "e1"> | Effect.Effect<string, "e2", A>> = []
    expectTypeOf(gather(items)).toEqualTypeOf<
      Effect.Effect<Array<number | string>, "e1" | "e2" | ChildCancelled, A>
    >()
  })

  test("a record gives a record with the same keys", () => {
    expectTypeOf(gather({ one: number, two: string, three: undefined })).toEqualTypeOf<
      Effect.Effect<{ one: number; two: string; three: undefined }, "e1" | ChildCancelled, A>
    >()
    const byName: Record<string, Effect.Effect<number, "e">> = {}
    expectTypeOf(gather(byName)).toEqualTypeOf<Effect.Effect<{ [x: string]: number }, "e" | ChildCancelled>>()
    const nothing = {}
    expectTypeOf(gather(nothing)).toEqualTypeOf<Effect.Effect<typeof nothing, ChildCancelled>>()
  })

  test("an optional key stays optional", () => {
    const items: { readonly user: Effect.Effect<string>; readonly avatar?: Effect.Effect<number, "e"> } = {
      user: Effect.succeed("ada")
    }
    expectTypeOf(gather(items)).toEqualTypeOf<
      Effect.Effect<{ user: string; avatar?: number }, "e" | ChildCancelled>
    >()
  })

  test("an interface gives its own keys", () => {
    interface Items {
      readonly user: Effect.Effect<string, "e1">
      readonly age: Effect.Effect<number>
    }
    const items = { user: Effect.succeed("ada"), age: number } as Items
    expectTypeOf(gather(items)).toEqualTypeOf<
      Effect.Effect<{ user: string; age: number }, "e1" | ChildCancelled>
    >()
  })

  test("any other iterable gives an array", () => {
    expectTypeOf(gather(new Set([string]))).toEqualTypeOf<
      Effect.Effect<Array<string>, "e1" | ChildCancelled, A>
    >()
    const generated = function* () {
      yield number
      yield undefined
    }
    expectTypeOf(gather(generated())).toEqualTypeOf<
      Effect.Effect<Array<number | undefined>, ChildCancelled>
    >()
  })

  test("null, undefined and Options stay what they are", () => {
    const maybe: Option.Option<Effect.Effect<number, "e", A>> = Option.none()
    const perhaps = number as Effect.Effect<number> | undefined
    expectTypeOf(gather([null, undefined, maybe, perhaps])).toEqualTypeOf<
      Effect.Effect<[null, undefined, Option.Option<number>, number | undefined], "e" | ChildCancelled, A>
    >()
    const none = Option.none()
    expectTypeOf(gather([none])).toEqualTypeOf<Effect.Effect<[Option.Option<never>], ChildCancelled>>()
    expectTypeOf(gather([Option.some(string), Option.none()])).toEqualTypeOf<
      Effect.Effect<[Option.Option<string>, Option.Option<never>], "e1" | ChildCancelled, A>
    >()
  })

  test("only letFinish needs an owner", () => {
    expectTypeOf(gather([number], { onFailure: "letFinish" })).toEqualTypeOf<
      Effect.Effect<[number], ChildCancelled, Owner>
    >()
    expectTypeOf(gather([number], { onFailure: "cancel", concurrency: 2 })).toEqualTypeOf<
      Effect.Effect<[number], ChildCancelled>
    >()
    expectTypeOf(gather([number], { concurrency: "unbounded" })).toEqualTypeOf<
      Effect.Effect<[number], ChildCancelled>
    >()
    // A policy that is decided at run time needs one, too.
    const onFailure = "cancel" as "cancel" | "letFinish"
    expectTypeOf(gather([number], { onFailure })).toEqualTypeOf<
      Effect.Effect<[number], ChildCancelled, Owner>
    >()
  })

  test("what is not an item is refused", () => {
    // @ts-expect-error a number is not an item
    const withNumber = () => gather([1])
    // @ts-expect-error an Option of something else is not an item
    const withOption = () => gather([Option.some(1)])
    // @ts-expect-error a promise is not an item
    const withPromise = () => gather([Promise.resolve(1)])
    // @ts-expect-error an effect is an item, not a collection of them
    const withEffect = () => gather(number)
    // @ts-expect-error an Option of an effect is one, too
    const withOne = () => gather(Option.some(number))
    expectTypeOf([withOne, withNumber, withOption, withPromise, withEffect]).toBeArray()
  })
})
