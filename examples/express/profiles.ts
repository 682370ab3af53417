// Stands in for the service that syncUser asks, to try the endpoint.

import { createServer } from 'node:http';

createServer((_req, res) => res.end(JSON.stringify({ plan: 'pro', since: '2024-03-01T12:00:00Z' }))).listen(3001, '127.0.0.1');
