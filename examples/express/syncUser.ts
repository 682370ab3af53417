// What a sync does with one user: put here what the loop of your processUserSync did. This one asks a service for the user's
// profile.

export type User = { _id: unknown; username?: string | null; email?: string | null };
/** Fields to set, and names of fields to remove. */
export type Changes = { set?: Record<string, unknown>; unset?: string[] };
/** The service is away, or asks for less. */
export class Away extends Error {}

const profiles = process.env.PROFILES_URL ?? 'http://127.0.0.1:3001';

/** Returns what to change. What it throws is an error of this user alone, unless it is Away. */
export async function syncUser(user: User): Promise<Changes> {
  if (!user.username) throw new Error('the user has no username');
  const url = `${profiles}/${encodeURIComponent(user.username)}`;
  const response = await fetch(url, { signal: AbortSignal.timeout(10_000) }).catch((e) => {
    throw new Away(`asking for profiles: ${e}`);
  });
  if (response.status === 404) return { unset: ['plan', 'since'] };
  if ([408, 429, 502, 503, 504].includes(response.status)) throw new Away(`profiles answered with ${response.status}`);
  // A 500 may be the fault of this user. As Away it would hold up all others, each time.
  if (!response.ok) throw new Error(`profiles answered with ${response.status}`);
  const profile = (await response.json()) as { plan: string; since: string };
  // A date is not a string: in MongoDB it must be a date. What is undefined is not set.
  return { set: { plan: profile.plan, since: { $date: profile.since }, email: user.email?.trim().toLowerCase() } };
}
