// Certificates of the private authority that tests/e2e/run made, issued on the spot by openssl.
import { execFileSync } from 'node:child_process';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const authority = process.env.GANGLION_E2E_CA;
export const authorityFile = authority && join(authority, 'ca.pem');

// Writes cert.pem and key.pem for localhost and the loopback addresses into `directory`; the last step of each is a
// rename, as a careful renewal does it. `by`: "authority", or "itself" for a certificate that nobody trusts.
export function issue(directory, commonName, by = 'authority') {
  if (!authority) throw new Error('GANGLION_E2E_CA names the authority (tests/e2e/run makes it)');
  const at = (name) => join(directory, name);
  writeFileSync(at('extensions'), 'subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1\nbasicConstraints=CA:FALSE\n');
  const openssl = (...args) => execFileSync('openssl', args, { stdio: ['ignore', 'ignore', 'ignore'] });
  openssl('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', `/CN=${commonName}`,
    '-keyout', at('key.new'), '-out', at('request'));
  const signer = by === 'authority'
    ? ['-CA', join(authority, 'ca.pem'), '-CAkey', join(authority, 'ca.key'), '-set_serial', String(Date.now())]
    : ['-signkey', at('key.new')];
  openssl('x509', '-req', '-in', at('request'), ...signer, '-days', '2', '-extfile', at('extensions'), '-out', at('cert.new'));
  renameSync(at('key.new'), at('key.pem'));
  renameSync(at('cert.new'), at('cert.pem'));
  return { cert: readFileSync(at('cert.pem')), key: readFileSync(at('key.pem')), certFile: at('cert.pem'), keyFile: at('key.pem') };
}
