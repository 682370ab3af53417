// Uses the client of orval, made for fetch. It has the paths of the API only, so that fetch needs the URL.

import { cancelJob, getJob, listJobs, pauseJobs, triggerJob } from './gen/orval';
import { baseUrl, key, say, there } from './say';

const fetchAny = globalThis.fetch;
globalThis.fetch = (path, init) => {
  const headers = new Headers(init?.headers);
  headers.set('Authorization', `Bearer ${key}`);
  return fetchAny(baseUrl + String(path), { ...init, headers });
};

async function main() {
  const triggered = await triggerJob('user-sync', { syncType: 'full' });
  const again = await triggerJob('user-sync', {});
  const list = await listJobs({ job: 'user-sync', state: 'waiting' });
  if (triggered.status !== 200 || again.status !== 200 || list.status !== 200) {
    throw new Error(`${triggered.status} ${again.status} ${list.status}`);
  }
  const id = triggered.data.data.jobId;
  const job = await getJob(id);
  const cancelled = await cancelJob(id);
  const paused = await pauseJobs({ job: 'issue-sync' });
  await cancelJob(again.data.data.jobId);
  if (job.status !== 200 || cancelled.status !== 200 || paused.status !== 200) {
    throw new Error(`${job.status} ${cancelled.status} ${paused.status}`);
  }
  const result = job.data.data.result;
  const updated: number = result && 'usersUpdated' in result ? Number(result.usersUpdated) : 0;
  say({
    id, coalesced: triggered.data.data.coalesced, listed: list.data.data.jobs.map((j) => j.id), state: job.data.data.state,
    syncType: there(job.data.data.data, 'the data').syncType, updated, cancelled: cancelled.data.data.state, paused: paused.data.message,
  });
}

main().catch((e: unknown) => {
  console.error(e);
  process.exitCode = 1;
});
