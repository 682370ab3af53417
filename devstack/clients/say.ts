// What all three programs have in common: their settings, and what they print for the test.

/** The API's URL, and a key for it. */
export const baseUrl = process.env.BASE_URL ?? '';
export const key = process.env.API_KEY ?? '';

/** Fails unless the value is there. */
export function there<T>(value: T | undefined | null, what: string): T {
  if (value === undefined || value === null) {
    throw new Error(`${what} is missing`);
  }
  return value;
}

/** Prints what a program has seen. */
export function say(seen: {
  id: string; coalesced: boolean; listed: string[]; state: string; syncType: string; updated: number; cancelled: string; paused: string;
}): void {
  console.log(JSON.stringify(seen));
}
