#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One signed request to the S3 server of the tests, for what the program itself never does: policies, settings, looking
behind its back.

  s3-request.py METHOD PATH?QUERY [FILE]     e.g.  PUT '/bucket?policy=' policy.json

Server and keys: S3_TEST_ENDPOINT, S3_TEST_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY. Prints the answer's body; the exit
code is 0 for a 2xx, else 1 with the status on standard error. Queries must be sorted and percent-encoded."""
import datetime, hashlib, hmac, os, sys, urllib.error, urllib.parse, urllib.request

method, target = sys.argv[1:3]
body = open(sys.argv[3], 'rb').read() if len(sys.argv) > 3 else b''
endpoint, region = os.environ['S3_TEST_ENDPOINT'], os.environ.get('S3_TEST_REGION', 'us-east-1')
path, _, query = target.partition('?')
host = urllib.parse.urlsplit(endpoint).netloc
now = datetime.datetime.now(datetime.timezone.utc).strftime('%Y%m%dT%H%M%SZ')
digest = hashlib.sha256(body).hexdigest()
scope = f'{now[:8]}/{region}/s3/aws4_request'
signed = 'host;x-amz-content-sha256;x-amz-date'
canonical = f'{method}\n{path}\n{query}\nhost:{host}\nx-amz-content-sha256:{digest}\nx-amz-date:{now}\n\n{signed}\n{digest}'
key = ('AWS4' + os.environ['AWS_SECRET_ACCESS_KEY']).encode()
for part in scope.split('/'):
    key = hmac.new(key, part.encode(), 'sha256').digest()
text = f'AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}'
signature = hmac.new(key, text.encode(), 'sha256').hexdigest()
request = urllib.request.Request(endpoint + target, data=body if method in ('PUT', 'POST') else None, method=method, headers={
    'x-amz-date': now, 'x-amz-content-sha256': digest, 'Content-Type': 'application/octet-stream',
    'Authorization': f'AWS4-HMAC-SHA256 Credential={os.environ["AWS_ACCESS_KEY_ID"]}/{scope}, SignedHeaders={signed}, Signature={signature}'})
try:
    with urllib.request.urlopen(request, timeout=30) as answer:
        sys.stdout.buffer.write(answer.read())
except urllib.error.HTTPError as e:
    sys.stdout.buffer.write(e.read())
    print(f'\n{method} {target}: {e.code}', file=sys.stderr)
    sys.exit(1)
