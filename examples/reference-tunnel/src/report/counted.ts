/** A number with its noun: 1 hash, 2 hashes. */
export const counted = (count: number, one: string, more: string): string =>
  `${count} ${count === 1 ? one : more}`
