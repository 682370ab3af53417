// What a sync does with one user: put here what the loop of your processUserSync did. This one asks a service for the user's
// profile.

export type User = { _id: unknown; username?: string | null; email?: string | null };

/** The service is away, or asks for less. */
export class Away extends Error {}

const profiles = process.env.PROFILES_URL ?? 'http://127.0.0.1:3001';

/** Returns the fields to set. What it throws is an error of this user alone, unless it is Away. */
export async function syncUser(user: User): Promise<Record<string, unknown>> {
  if (!user.username) throw new Error('the user has no username');
  const url = `${profiles}/${encodeURIComponent(user.username)}`;
  const response = await fetch(url, { signal: AbortSignal.timeout(10_000) }).catch((e) => {
    throw new Away(`asking for profiles: ${e}`);
  });
  if (response.status === 429 || response.status >= 500) throw new Away(`profiles answered with ${response.status}`);
  if (!response.ok) throw new Error(`there is no profile: ${response.status}`);
  const profile = (await response.json()) as { plan: string };
  return { plan: profile.plan, email: user.email?.trim().toLowerCase() }; // what is undefined is not set
}
