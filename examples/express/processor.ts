// The endpoint: a worker posts each batch of users to it, and writes what it answers to MongoDB.

import express from 'express';
import { Webhook } from 'standardwebhooks';
import { Away, syncUser, type User } from './syncUser';

const secrets = (process.env.USER_SYNC_SECRET ?? '').split(',').map((secret) => new Webhook(secret.trim()));

function verify(body: Buffer, headers: Record<string, string>): { records: User[] } | undefined {
  for (const secret of secrets) {
    try {
      return secret.verify(body, headers) as { records: User[] };
    } catch {} // the next secret may be the right one
  }
}

async function resultFor(user: User) {
  try {
    return { _id: user._id, ...(await syncUser(user)) };
  } catch (e) {
    if (e instanceof Away) throw e; // not this user's fault: the whole batch shall come again
    return { _id: user._id, error: (e as Error)?.message || String(e) };
  }
}

const app = express();
// The signature is of the body as it came, so nothing may parse it before. Express takes 100 kB by default.
app.post('/user-sync', express.raw({ type: 'application/json', limit: '16mb' }), async (req, res) => {
  const batch = verify(req.body, req.headers as Record<string, string>);
  if (!batch) return void res.status(401).send('the signature is wrong');
  try {
    res.json({ results: await Promise.all(batch.records.map(resultFor)) });
  } catch (e) {
    if (!(e instanceof Away)) throw e;
    res.status(503).set('Retry-After', '10').send(e.message);
  }
});
const port = process.env.PORT ?? '3000';
app.listen(Number(port), (e) => {
  if (e) throw e;
  console.log(`http://localhost:${port}/user-sync`);
});
