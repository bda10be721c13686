// A real OpenID provider for the tests: the certified `oidc-provider` on loopback, with accounts the test chooses.
//
// The first line on stdin is the configuration, see `support/idp.rs`; the first line on stdout says where the
// provider and its control surface listen. When stdin closes, the test has ended, and so does this program.

import { X509Certificate, generateKeyPairSync, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';

// The provider's advice for production at start-up would only litter the tests' output.
console.info = console.warn = () => {};
const { Provider } = await import('oidc-provider');

const lines = createInterface({ input: process.stdin });
lines.once('line', (line) => start(JSON.parse(line)));
lines.on('close', () => process.exit(0));

async function start(config) {
  const accounts = new Map(config.accounts.map((account) => [account.sub, account]));
  const front = createServer();
  const issuer = await listen(front);
  const cookieKey = randomBytes(32).toString('hex');
  // What the token endpoint answers instead of the truth: null, { status, body } or 'hang'.
  let trouble = null;
  // Every token that left this program: what a gateway must keep to itself.
  const issued = [];
  let keys = [signingKey(1, config.algorithm)];
  let provider = null;

  function publish() {
    provider = new Provider(issuer, settings({ config, accounts, keys, cookieKey }));
    provider.use(async (ctx, next) => {
      if (trouble === null || ctx.path !== '/token') {
        await next();
        if (ctx.path === '/token') issued.push(...['access_token', 'refresh_token', 'id_token'].map((name) => ctx.body?.[name]).filter(Boolean));
        return;
      }
      if (trouble === 'hang') return new Promise(() => {});
      ctx.status = trouble.status;
      ctx.body = trouble.body;
    });
    provider.on('server_error', (_ctx, error) => console.error(error));
    provider.on('backchannel.error', (_ctx, error) => console.error(error));
  }
  publish();

  front.on('request', (request, response) => {
    if (!request.url.startsWith('/interaction/')) return provider.callback()(request, response);
    interact(provider, accounts, request, response).catch((error) => {
      console.error(error);
      response.writeHead(500).end(String(error));
    });
  });

  const control = createServer(async (request, response) => {
    if (request.method === 'GET' && request.url === '/issued') return response.end(JSON.stringify(issued));
    const body = await read(request);
    const [, noun, sub] = request.url.split('/').map(decodeURIComponent);
    if (request.method === 'PUT' && noun === 'accounts') accounts.set(sub, JSON.parse(body));
    else if (request.method === 'DELETE' && noun === 'accounts') accounts.delete(sub);
    else if (request.method === 'PUT' && noun === 'trouble') trouble = JSON.parse(body);
    else if (request.method === 'POST' && noun === 'keys') {
      keys = [signingKey(keys.length + 1, config.algorithm)];
      publish();
    } else return response.writeHead(404).end();
    response.writeHead(204).end();
  });

  console.log(JSON.stringify({ issuer, control: await listen(control) }));
}

function settings({ config, accounts, keys, cookieKey }) {
  return {
    adapter: Memory,
    clients: [{
      client_id: config.client_id,
      client_secret: config.client_secret,
      redirect_uris: config.redirect_uris,
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      backchannel_logout_uri: new URL('/oauth/backchannel_logout', config.redirect_uris[0]).href,
      backchannel_logout_session_required: true,
      id_token_signed_response_alg: config.algorithm ?? 'RS256',
      ...config.client_metadata,
      ...clientKey(config.client_certificate),
    }],
    enabledJWA: {
      idTokenSigningAlgValues: [config.algorithm ?? 'RS256'],
      clientAuthSigningAlgValues: ['PS256', 'RS256', 'ES256', 'ES384'],
    },
    jwks: { keys },
    cookies: { keys: [cookieKey] },
    scopes: ['openid', 'offline_access', 'profile', 'email', 'groups'],
    claims: {
      openid: ['sub'],
      profile: ['name', 'groups'],
      email: ['email', 'email_verified'],
      groups: ['groups'],
    },
    // Claims of the scopes stand in the id_token itself, as with Okta, Entra and Google.
    conformIdTokenClaims: false,
    pkce: { required: () => true },
    features: { devInteractions: { enabled: false }, backchannelLogout: { enabled: true } },
    // Its own guard refuses loopback, where the gateway of a test is.
    fetch: (url, { dispatcher, ...options }) => globalThis.fetch(url, options),
    interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
    rotateRefreshToken: config.refresh_tokens === 'rotated',
    issueRefreshToken: (_ctx, client, code) =>
      config.refresh_tokens !== 'none' && client.grantTypeAllowed('refresh_token') && code.scopes.has('openid'),
    findAccount: (_ctx, sub) => {
      const account = accounts.get(sub);
      // Somebody who is gone cannot refresh either: the provider answers invalid_grant.
      return account && { accountId: sub, claims: async () => account };
    },
    // Everything that was asked for is granted: consent pages are not what these tests are about.
    loadExistingGrant: async (ctx) => {
      const grant = new ctx.oidc.provider.Grant({ clientId: ctx.oidc.client.clientId, accountId: ctx.oidc.session.accountId });
      grant.addOIDCScope('openid offline_access profile email groups');
      await grant.save();
      return grant;
    },
    ttl: { AccessToken: 600, AuthorizationCode: 60, Grant: 86400, IdToken: 3600, Interaction: 600, RefreshToken: 86400, Session: 86400 },
  };
}

/** The sign-in page: one form with one text field, for browsers and scripts alike. */
async function interact(provider, accounts, request, response) {
  const { uid } = await provider.interactionDetails(request, response);
  if (request.method === 'GET') return page(response, uid, '');
  const form = new URLSearchParams(await read(request));
  if (form.has('cancel')) {
    const result = { error: 'access_denied', error_description: 'The person said no' };
    return provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
  }
  const account = accounts.get(form.get('login'));
  if (account === undefined) return page(response, uid, 'Nobody of that name may sign in.');
  return provider.interactionFinished(request, response, { login: { accountId: account.sub } }, { mergeWithLastSubmission: false });
}

function page(response, uid, problem) {
  response.writeHead(200, { 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-store' });
  response.end(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><link rel="icon" href="data:,"><title>Sign in to the test provider</title></head>
<body><main><h1>Sign in</h1><p>${problem}</p>
<form method="post" action="/interaction/${uid}">
<label>Account <input name="login" autocomplete="username" autofocus></label>
<button type="submit">Sign in</button>
<button type="submit" name="cancel" value="1">Cancel</button>
</form></main></body></html>`);
}

function signingKey(number, alg = 'RS256') {
  const [type, options] = {
    E: ['ec', { namedCurve: { ES256: 'P-256', ES384: 'P-384', ES512: 'P-521' }[alg] }],
    R: ['rsa', { modulusLength: 2048 }],
    P: ['rsa', { modulusLength: 2048 }],
  }[alg[0]];
  const { privateKey } = alg === 'EdDSA' ? generateKeyPairSync('ed25519') : generateKeyPairSync(type, options);
  return { ...privateKey.export({ format: 'jwk' }), kid: `key-${number}`, alg, use: 'sig' };
}

/** The client's key, as an operator uploads it: a certificate. */
function clientKey(certificate) {
  return certificate && { jwks: { keys: [new X509Certificate(certificate).publicKey.export({ format: 'jwk' })] } };
}

async function listen(server) {
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return `http://127.0.0.1:${server.address().port}`;
}

async function read(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString('utf8');
}

/** The provider's storage; one for all instances, so that tokens outlive a change of keys. */
const storage = new Map();
class Memory {
  constructor(model) { this.model = model; }
  key(id) { return `${this.model}:${id}`; }
  async upsert(id, payload) { storage.set(this.key(id), payload); }
  async find(id) { return storage.get(this.key(id)); }
  async findByUid(uid) { return this.#first((payload) => payload.uid === uid); }
  async findByUserCode(userCode) { return this.#first((payload) => payload.userCode === userCode); }
  async consume(id) { storage.get(this.key(id)).consumed = Math.floor(Date.now() / 1000); }
  async destroy(id) { storage.delete(this.key(id)); }
  async revokeByGrantId(grantId) {
    for (const [key, payload] of storage) if (payload.grantId === grantId) storage.delete(key);
  }
  #first(matches) {
    for (const [key, payload] of storage) if (key.startsWith(`${this.model}:`) && matches(payload)) return payload;
    return undefined;
  }
}
