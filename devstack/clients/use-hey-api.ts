// Uses the client of Hey API. It chooses how the key is sent from the description.

import { client } from './gen/hey-api/client.gen';
import { cancelJob, getJob, listJobs, pauseJobs, triggerJob } from './gen/hey-api';
import { baseUrl, key, say, there } from './say';

async function main() {
  client.setConfig({ baseUrl, auth: key, throwOnError: true });
  const triggered = there((await triggerJob({ path: { job: 'user-sync' }, body: { syncType: 'full' } })).data, 'the trigger').data;
  const again = there((await triggerJob({ path: { job: 'user-sync' } })).data, 'a trigger without a body').data;
  const list = there((await listJobs({ query: { job: 'user-sync', state: 'waiting' } })).data, 'the list').data;
  const id = triggered.jobId;
  const job = there((await getJob({ path: { id } })).data, 'the job').data;
  const result = job.result;
  const updated: number = result && 'usersUpdated' in result ? Number(result.usersUpdated) : 0;
  const cancelled = there((await cancelJob({ path: { id } })).data, 'the cancelled job').data;
  const paused = there((await pauseJobs({ body: { job: 'issue-sync' } })).data, 'the pause');
  await cancelJob({ path: { id: again.jobId } });
  say({
    id, coalesced: triggered.coalesced, listed: list.jobs.map((j) => j.id), state: job.state, syncType: there(job.data, 'the data').syncType,
    updated, cancelled: cancelled.state, paused: paused.message,
  });
}

main().catch((e: unknown) => {
  console.error(e);
  process.exitCode = 1;
});
