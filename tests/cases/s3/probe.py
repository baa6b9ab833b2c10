#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 120
"""Which servers may be written to? Toy servers that keep If-None-Match, ignore it, look first and write then, lose the winner's
bytes, or do not implement it; that hide what was written, or show what was removed. `doctor` and the first `create` must tell them apart; reading stays allowed. And one that keeps it,
but whose every first answer to a put gets lost: what landed is known again, and no number is lost."""
import http.server, os, re, socket, subprocess, sys, threading, time, urllib.parse
from email.utils import formatdate

GRID = os.environ['GRID']


def fail(text):
    print('FAILED:', text, file=sys.stderr)
    sys.exit(1)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, mode):
        super().__init__(('127.0.0.1', 0), Handler)
        self.mode, self.objects, self.lock = mode, {}, threading.Lock()
        self.lost = self.looks = self.lies = 0
        self.removed = {}
        self.together = self.inside = 0  # the most puts of one moment


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *_):
        pass

    def answer(self, status, body=b'', headers=()):
        self.send_response(status)
        self.send_header('Content-Length', str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def error(self, status, code):
        self.answer(status, f'<Error><Code>{code}</Code></Error>'.encode())

    def do_PUT(self):
        s, key = self.server, self.path
        conditional = self.headers.get('If-None-Match') == '*'
        with s.lock:
            s.inside += 1
            s.together = max(s.together, s.inside)
            there = key in s.objects  # what "looks first" sees
        body = self.rfile.read(int(self.headers['Content-Length']))
        with s.lock:
            s.inside -= 1
            if s.mode == 'not-implemented' and conditional:
                return self.error(501, 'NotImplemented')
            taken = {'looks-first': there, 'ignores': False}.get(s.mode, key in s.objects)
            if s.mode == 'overwrites' and taken:
                s.objects[key] = (body, time.time())
            if conditional and taken:
                return self.error(412, 'PreconditionFailed')
            s.objects[key] = (body, time.time())
            if s.mode == 'loses-answers' and '.probe' not in key:
                s.lost += 1
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return None
        return self.answer(200, headers=[('ETag', '"x"')])

    def do_GET(self):
        s = self.server
        path, _, query = self.path.partition('?')
        query = urllib.parse.parse_qs(query, keep_blank_values=True)
        if 'list-type' in query:
            return self.list(path, query)
        if query:
            return self.error(501, 'NotImplemented')
        with s.lock:
            found = s.objects.get(path)
        if not found:
            return self.error(404, 'NoSuchKey')
        first, last = map(int, re.fullmatch(r'bytes=(\d+)-(\d+)', self.headers['Range']).groups())
        body = found[0][first:last + 1]
        self.answer(206, body, [('Content-Range', f'bytes {first}-{first + len(body) - 1}/{len(found[0])}'), ('ETag', '"x"')])

    def list(self, bucket, query):
        prefix, delimiter = query['prefix'][0], query.get('delimiter', [''])[0]
        rows, groups = '', set()
        with self.server.lock:
            shown = dict(self.server.objects)
            if self.server.mode == 'ghosts' and len(self.server.removed) > 20:
                shown.update(self.server.removed)
                self.server.lies += 1
            for key, (body, date) in sorted(shown.items()):
                key = key[len(bucket.rstrip('/')) + 1:]
                if not key.startswith(prefix):
                    continue
                self.server.looks += 1
                if self.server.mode == 'hides' and self.server.looks % 29 == 0:
                    self.server.lies += 1
                    continue
                end = key.find('/', len(prefix)) if delimiter else -1
                if end >= 0:
                    groups.add(key[:end + 1])
                    continue
                stamp = time.strftime('%Y-%m-%dT%H:%M:%S.000Z', time.gmtime(date))
                rows += f'<Contents><Key>{key}</Key><LastModified>{stamp}</LastModified><ETag>"x"</ETag><Size>{len(body)}</Size></Contents>'
        rows += ''.join(f'<CommonPrefixes><Prefix>{g}</Prefix></CommonPrefixes>' for g in sorted(groups))
        self.answer(200, f'<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>'.encode())

    def do_DELETE(self):
        with self.server.lock:
            if self.path in self.server.objects:
                self.server.removed[self.path] = self.server.objects.pop(self.path)
        self.answer(204)


def grid(server, *words):
    env = dict(os.environ, GRID_STORE='s3://bucket/grid', AWS_ENDPOINT_URL=f'http://127.0.0.1:{server.server_port}',
               AWS_ACCESS_KEY_ID='x', AWS_SECRET_ACCESS_KEY='y', AWS_REGION='r')
    p = subprocess.run([GRID, *words], env=env, capture_output=True, text=True)
    return p.returncode, p.stdout + p.stderr


os.makedirs('tree')
with open('tree/file', 'w') as f:
    f.write('data')
EXPECTED = {
    'keeps': None,
    'ignores': r'must not be written to: its server lets a key that exists be written again',
    'overwrites': r'must not be written to: its server says that a key exists, and overwrites it',
    'looks-first': r'must not be written to: its server let [2-8] of 8 who wrote one new key at the same time succeed',
    'not-implemented': r'does not implement',
    'hides': r'must not be written to: what was just written is missing in its listing',
    'ghosts': r'must not be written to: what was just removed is still listed',
    'loses-answers': None,
}
for mode, sentence in EXPECTED.items():
    server = Server(mode)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for words in (['datastore', 'doctor'], ['datastore', 'create', 'tree', '--name', 'x']):
        code, said = grid(server, *words)
        if code != (1 if sentence else 0) or not re.search(sentence or 'x:1|one winner in each of 20 rounds', said):
            fail(f'{mode}: {" ".join(words)}: {code}: {said}')
        left = [k for k in server.objects if sentence or '.probe' in k]
        if left:
            fail(f'{mode}: {words[1]} left {left}')
    if mode in ('keeps', 'looks-first') and server.together < 8:
        fail(f'{mode}: at most {server.together} puts overlapped')
    if mode in ('hides', 'ghosts') and not server.lies:
        fail(f'{mode}: the server never lied')
    server.mode = mode if not sentence else 'keeps'
    code, said = grid(server, 'datastore')  # reading is allowed everywhere
    if code != 0 or ('no datastores' if sentence else 'succeeded') not in said:
        fail(f'{mode}: a listing: {code}: {said}')
    if mode == 'loses-answers':
        records = [k for k in server.objects if re.search('/n/x/v/[0-9]+/a$', k)]
        if server.lost < 5 or len(records) != 1:
            fail(f'{mode}: {server.lost} answers were lost; {records}')
    server.shutdown()
    print(f'{mode}: as expected')
