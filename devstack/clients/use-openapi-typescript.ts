// Uses the types of openapi-typescript, with openapi-fetch.

import createClient from 'openapi-fetch';
import type { paths } from './gen/openapi-typescript';
import { baseUrl, key, say, there } from './say';

async function main() {
  const api = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${key}` } });
  const triggered = there((await api.POST('/jobs/trigger/{job}', { params: { path: { job: 'user-sync' } }, body: { syncType: 'full' } })).data, 'the trigger').data;
  const again = there((await api.POST('/jobs/trigger/{job}', { params: { path: { job: 'user-sync' } } })).data, 'a trigger without a body').data;
  const list = there((await api.GET('/jobs', { params: { query: { job: 'user-sync', state: 'waiting' } } })).data, 'the list').data;
  const id = triggered.jobId;
  const job = there((await api.GET('/jobs/{id}', { params: { path: { id } } })).data, 'the job').data;
  const result = job.result;
  const updated: number = result && 'usersUpdated' in result ? Number(result.usersUpdated) : 0;
  const cancelled = there((await api.DELETE('/jobs/{id}', { params: { path: { id } } })).data, 'the cancelled job').data;
  const paused = there((await api.POST('/jobs/pause', { body: { job: 'issue-sync' } })).data, 'the pause');
  await api.DELETE('/jobs/{id}', { params: { path: { id: again.jobId } } });
  say({
    id, coalesced: triggered.coalesced, listed: list.jobs.map((j) => j.id), state: job.state, syncType: there(job.data, 'the data').syncType,
    updated, cancelled: cancelled.state, paused: paused.message,
  });
}

main().catch((e: unknown) => {
  console.error(e);
  process.exitCode = 1;
});
