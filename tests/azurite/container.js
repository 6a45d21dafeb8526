// Makes an empty container in the store of the tests, with a signed request.
//
//   node container.js NAME   (AZURE_STORAGE_ENDPOINT, _ACCOUNT_NAME and _ACCOUNT_KEY say where)
//
// The store client of Tidegate makes no containers, on purpose. Nothing but Node's own modules is
// used. The rules of the signature ("Shared Key") are in Azure's documentation of its blob service.
'use strict';

const crypto = require('node:crypto');
const http = require('node:http');

const name = process.argv[2];
const endpoint = new URL(process.env.AZURE_STORAGE_ENDPOINT);
const account = process.env.AZURE_STORAGE_ACCOUNT_NAME;
const key = Buffer.from(process.env.AZURE_STORAGE_ACCOUNT_KEY, 'base64');

const path = `${endpoint.pathname}/${name}`;
const headers = {
  'content-length': '0',
  'x-ms-date': new Date().toUTCString(),
  'x-ms-version': '2021-12-02',
};
const signed = [
  'PUT',
  ...Array(11).fill(''), // no header of those that stand without their names
  `x-ms-date:${headers['x-ms-date']}`,
  `x-ms-version:${headers['x-ms-version']}`,
  `/${account}${path}`,
  'restype:container',
].join('\n');
const signature = crypto.createHmac('sha256', key).update(signed).digest('base64');
headers.authorization = `SharedKey ${account}:${signature}`;

const options = {
  hostname: endpoint.hostname,
  port: endpoint.port,
  path: `${path}?restype=container`,
  method: 'PUT',
  headers,
  timeout: 10_000,
};
const fail = (what) => {
  console.error(`container.js: no container '${name}' at ${endpoint}: ${what}`);
  process.exit(1);
};
const request = http.request(options, (response) => {
  response.resume();
  if (response.statusCode !== 201) fail(`the store answered ${response.statusCode}`);
});
request.on('timeout', () => request.destroy(new Error('no answer in 10 s')));
request.on('error', (error) => fail(error.message));
request.end();
