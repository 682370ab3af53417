// Stands in for the service that syncUser asks, to try the endpoint.

import { createServer } from 'node:http';

createServer((_req, res) => res.end(JSON.stringify({ plan: 'pro' }))).listen(3001, '127.0.0.1');
