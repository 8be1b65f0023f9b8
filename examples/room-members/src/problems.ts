/** What a request can fail with, and how it is answered: by itself, wherever in a handler it comes up. */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import { symbol } from "effect/http/HttpServerRespondable"
import * as HttpServerResponse from "effect/http/HttpServerResponse"

const answer = (status: number, problem: string) =>
  Effect.succeed(HttpServerResponse.jsonUnsafe({ problem }, { status }))

export class RoomNotFound extends Data.TaggedError("RoomNotFound")<{ readonly room: string }> {
  override get message(): string {
    return `There is no room "${this.room}"; the rooms are listed under /rooms.`
  }
  [symbol]() {
    return answer(404, this.message)
  }
}

export class NotAMember extends Data.TaggedError("NotAMember")<{
  readonly room: string
  readonly user: string
}> {
  override get message(): string {
    return `${this.user} is no member of "${this.room}"; let them join first.`
  }
  [symbol]() {
    return answer(403, this.message)
  }
}

export class BadBody extends Data.TaggedError("BadBody")<{ readonly expected: string }> {
  override get message(): string {
    return `Send JSON such as ${this.expected}.`
  }
  [symbol]() {
    return answer(400, this.message)
  }
}
