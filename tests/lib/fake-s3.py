#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A small S3 that does wrong on purpose. What is right is tested against a real server; this one is for faults.

  fake-s3.py DIR     serves on a free port of 127.0.0.1, prints the port, ends when its stdin closes

Scenarios are JSON files DIR/<operation>/<symptom>.json (or DIR/<symptom>.json), chosen by POST /_scenario with that name. POST /_rules puts other
rules (a JSON list) in place of those there are, and tells how often these fired; objects stay.

  "about"     one sentence
  "objects"   {"bucket/key": "text" or a number of pattern bytes}: what is there at first
  "many"      {"bucket/key%05d": [count, number of pattern bytes]}: the same, many of them
  "rules"     tried in order for each request; each fires "times" times (default 1, -1: always) after having been
              passed over "skip" times. "match": {"method", "path" (a prefix), "query", "header": [name, text],
              "no_header"}, each a substring but "method"; then what is done:
      "status", "code", "headers", "body"   answer with that ("code" makes an S3 error of it; {SOON} is a time)
      "drop"       "before": hang up at once; "after": do it, then hang up without an answer
      "truncate"   send only that many bytes of the body, then hang up; "surplus": that many more
      "stall_ms"   wait before the answer; "trickle": that many bytes, then silence
      "set"        {"bucket/key": "text", bytes or null}: what is there (null: not) from then on; {N} counts
      "flip"       turn a bit of this byte of the object
      "whole"      ignore Range; "range"/"etag"/"length": lie about it; "xml": [old, new] in the body
  "require"   {"key", "token"}: else 403 (InvalidAccessKeyId)
  "options"   for the client: {"attempt_ms": 500, ...}; "env": {"NAME": "value with {PORT}"}; "files": {name: text}
  "expect"    {"result": "OK" or "EIO", "words": "...", "requests": [least, most], "objects": {key: present?},
              "uploads": how many are left}; every rule must have fired, unless it is "optional"
"""
import hashlib, http.server, json, os, re, socket, struct, sys, threading, time, urllib.parse

TOP = sys.argv[1]
lock = threading.RLock()


def pattern(size):
    """The bytes that the tests make, too."""
    whole = bytes((i * 7 + i // 251) & 255 for i in range(min(size, 251 * 256)))
    return (whole * (size // (251 * 256) + 1))[:size]


class World:
    def __init__(self, scenario):
        self.scenario = scenario
        self.objects = {k: v.encode() if isinstance(v, str) else pattern(v) for k, v in scenario.get('objects', {}).items()}
        for k, (count, size) in scenario.get('many', {}).items():
            self.objects.update({k % i: pattern(size) for i in range(count)})
        self.rules = [dict(r, fired=0, passed=0) for r in scenario.get('rules', [])]
        self.uploads, self.etags = {}, {}
        self.requests = []


world = World({})


def etag(data):
    return hashlib.md5(data).hexdigest()


def soon():
    """A time of expiry that is near, but not yet."""
    return time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(time.time() + 120))


def error(status, code, extra=''):
    return status, {'Content-Type': 'application/xml'}, (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>secret words</Message>{extra}'
        f'<RequestId>REQ-1</RequestId></Error>').encode()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *_):
        pass

    def do_any(self):
        length = int(self.headers.get('Content-Length') or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            self.close_connection = True
            return
        self.parts = urllib.parse.urlsplit(self.path)
        if self.parts.path.startswith('/_'):
            self.reply(*self.control(body))
            return
        with lock:
            world.requests.append(f'{self.command} {self.path}')
            rule = self.find_rule()
        self.act(rule or {}, body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_any

    # ---- the test's side

    def control(self, body):
        global world
        if self.parts.path == '/_scenario':
            with open(os.path.join(TOP, body.decode() + '.json')) as f:
                world = World(json.load(f))
            return 200, {}, self.directions().encode()
        if self.parts.path == '/_requests':
            return 200, {}, '\n'.join(world.requests).encode()
        if self.parts.path == '/_rules':
            with lock:
                fired = sum(r['fired'] for r in world.rules)
                world.rules = [dict(r, fired=0, passed=0) for r in json.loads(body)]
            return 200, {}, str(fired).encode()
        return 200, {}, self.verdict().encode()

    def directions(self):
        s = world.scenario
        lines = [f'{k} {v}' for k, v in s.get('options', {}).items()]
        port = str(self.server.server_address[1])
        lines += [f'env {k} ' + v.replace('{PORT}', port) for k, v in s.get('env', {}).items()]
        lines += [f'file {k} ' + urllib.parse.quote(v.replace('{PORT}', port)) for k, v in s.get('files', {}).items()]
        lines += [f"result {s['expect']['result']}", f"words {s['expect'].get('words', '')}"]
        return '\n'.join(lines) + '\n'

    def verdict(self):
        expect, bad = world.scenario['expect'], []
        for r in world.rules:
            if not r['fired'] and not r.get('optional'):
                bad.append(f'this rule never fired: {r}')
        least, most = expect.get('requests', [0, 1000])
        if not least <= len(world.requests) <= most:
            bad.append(f'{len(world.requests)} requests: {world.requests[:40]}')
        for key, present in expect.get('objects', {}).items():
            if (key in world.objects) != present:
                bad.append(f"{key} is {'not ' if present else ''}there")
        if len(world.uploads) != expect.get('uploads', 0):
            bad.append(f'uploads left: {list(world.uploads)}')
        return '; '.join(bad) or 'ok'

    # ---- rules

    def find_rule(self):
        for r in world.rules:
            m = r.get('match', {})
            header = m.get('header')
            if (m.get('method', self.command) != self.command or not self.parts.path.startswith(m.get('path', ''))
                    or m.get('query', '') not in self.parts.query
                    or header and header[1] not in (self.headers.get(header[0]) or '')
                    or 'no_header' in m and self.headers.get(m['no_header']) is not None):
                continue
            if r['passed'] < r.get('skip', 0):
                r['passed'] += 1
                continue
            if r.get('times', 1) >= 0 and r['fired'] >= r.get('times', 1):
                continue
            r['fired'] += 1
            return r

    def hang_up(self):
        """With a reset, so that it is seen at once."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        self.close_connection = True

    def act(self, rule, body):
        if rule.get('stall_ms'):
            time.sleep(rule['stall_ms'] / 1000)
        if rule.get('drop') == 'before':
            return self.hang_up()
        if 'status' in rule:
            status, headers, data = rule['status'], {}, rule.get('body', '').replace('{SOON}', soon()).encode()
            if 'code' in rule:
                status, headers, data = error(status, rule['code'], rule.get('extra', ''))
        else:
            with lock:
                status, headers, data = self.serve(body, rule)
                self.set_objects(rule.get('set', {}))
        for name, value in rule.get('headers', {}).items():
            headers[name] = value
        if rule.get('drop') == 'after':
            return self.hang_up()
        if 'xml' in rule:
            data = data.replace(rule['xml'][0].encode(), rule['xml'][1].encode())
        self.reply(status, headers, data, rule)

    def reply(self, status, headers, data, rule={}):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header('Content-Length', str(rule.get('length', len(data))))
        self.end_headers()
        if self.command == 'HEAD':
            return
        if 'trickle' in rule:
            self.wfile.write(data[:rule['trickle']])
            self.wfile.flush()
            time.sleep(rule.get('silence_ms', 3000) / 1000)
            return self.hang_up()
        if 'truncate' in rule:
            self.wfile.write(data[:rule['truncate']])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_WR)
            self.close_connection = True
            return
        self.wfile.write(data + b'x' * rule.get('surplus', 0))
        if rule.get('surplus'):
            self.close_connection = True

    def set_objects(self, changes):
        for key, value in changes.items():
            world.changes = getattr(world, 'changes', 0) + 1
            if value is None:
                world.objects.pop(key, None)
            else:
                world.objects[key] = value.replace('{N}', str(world.changes)).encode() if isinstance(value, str) else pattern(value + 1)[1:]

    # ---- S3

    def serve(self, body, rule):
        require = world.scenario.get('require', {})
        if 'key' in require and f"Credential={require['key']}/" not in (self.headers.get('Authorization') or ''):
            return error(403, 'InvalidAccessKeyId')
        if 'token' in require and self.headers.get('x-amz-security-token') != require['token']:
            return error(403, 'InvalidToken')
        digest = self.headers.get('x-amz-content-sha256')
        if digest and digest != hashlib.sha256(body).hexdigest():
            return error(400, 'XAmzContentSHA256Mismatch')
        query = urllib.parse.parse_qs(self.parts.query, keep_blank_values=True)
        key = urllib.parse.unquote(self.parts.path)[1:]
        if 'list-type' in query:
            return self.list(key.rstrip('/') + '/', query)
        return getattr(self, 'on_' + self.command.lower())(key, query, body, rule)

    def on_get(self, key, query, body, rule):
        if key not in world.objects:
            return error(404, 'NoSuchKey')
        data = world.objects[key]
        if_match = self.headers.get('If-Match')
        if if_match and if_match.strip('"') != etag(data) and not rule.get('blind'):
            return error(412, 'PreconditionFailed')
        headers = {'ETag': f"\"{rule.get('etag', world.etags.get(key, etag(data)))}\"", 'Last-Modified': 'Mon, 12 Oct 2009 17:50:30 GMT'}
        wanted = re.match(r'bytes=(\d+)-(\d+)$', self.headers.get('Range') or '')
        if not wanted or rule.get('whole'):
            return 200, headers, data
        first, last = int(wanted[1]), min(int(wanted[2]), len(data) - 1)
        if first > last:
            return error(416, 'InvalidRange')
        if first <= rule.get('flip', -1) <= last:
            data = bytearray(data)
            data[rule['flip']] ^= 1
            data = bytes(data)
        headers['Content-Range'] = rule.get('range', f'bytes {first}-{last}/{len(data)}')
        return 206, headers, data[first:last + 1]

    on_head = on_get

    def on_put(self, key, query, body, rule):
        if 'uploadId' in query:
            parts = world.uploads.get(query['uploadId'][0])
            if parts is None:
                return error(404, 'NoSuchUpload')
            parts[int(query['partNumber'][0])] = body
        else:
            if self.headers.get('If-None-Match') == '*' and key in world.objects:
                return error(412, 'PreconditionFailed')
            world.objects[key] = body
        return 200, {'ETag': f'"{etag(body)}"'}, b''

    def on_post(self, key, query, body, rule):
        if 'uploads' in query:
            upload = f'id-{len(world.uploads)}+/='
            world.uploads[upload] = {}
            return 200, {}, (f'<InitiateMultipartUploadResult><Bucket>b</Bucket><UploadId>{upload}</UploadId>'
                             '</InitiateMultipartUploadResult>').encode()
        parts = world.uploads.get(query['uploadId'][0])
        if parts is None:
            return error(404, 'NoSuchUpload')
        if self.headers.get('If-None-Match') == '*' and key in world.objects:
            return error(412, 'PreconditionFailed')
        told = re.findall(r'<PartNumber>(\d+)</PartNumber><ETag>&quot;(\w+)&quot;</ETag>', body.decode())
        if [(str(n), etag(parts[n])) for n in sorted(parts)] != told:
            return error(400, 'InvalidPart')
        world.objects[key] = b''.join(parts[n] for n in sorted(parts))
        sums = b''.join(hashlib.md5(parts[n]).digest() for n in sorted(parts))
        world.etags[key] = f'{hashlib.md5(sums).hexdigest()}-{len(parts)}'
        del world.uploads[query['uploadId'][0]]
        return 200, {}, b'<CompleteMultipartUploadResult><ETag>"x"</ETag></CompleteMultipartUploadResult>'

    def on_delete(self, key, query, body, rule):
        if 'uploadId' in query:
            world.uploads.pop(query['uploadId'][0], None)
        else:
            world.objects.pop(key, None)
        return 204, {}, b''

    def list(self, bucket, query):
        one = {k: v[0] for k, v in query.items()}
        after = one.get('continuation-token', one.get('start-after', ''))
        size = int(one.get('max-keys', 1000))
        keys = sorted(k[len(bucket):] for k in world.objects if k.startswith(bucket + one.get('prefix', '')))
        if 'delimiter' in one:
            at = len(one.get('prefix', ''))
            keys = sorted({k if one['delimiter'] not in k[at:] else k[:k.index(one['delimiter'], at) + 1] for k in keys})
        keys = [k for k in keys if k > after]
        page, more = keys[:size], len(keys) > size
        prefixes = [k for k in page if bucket + k not in world.objects]
        groups = ''.join(f'<CommonPrefixes><Prefix>{urllib.parse.quote_plus(k)}</Prefix></CommonPrefixes>' for k in prefixes)
        rows = ''.join(f'<Contents><Key>{urllib.parse.quote_plus(k)}</Key><LastModified>2009-10-12T17:50:30.000Z</LastModified>'
                       f'<ETag>&quot;{etag(world.objects[bucket + k])}&quot;</ETag><Size>{len(world.objects[bucket + k])}</Size>'
                       '</Contents>' for k in page if k not in prefixes)
        token = f'<NextContinuationToken>{page[-1]}</NextContinuationToken>' if more else ''
        return 200, {}, (f'<ListBucketResult><EncodingType>url</EncodingType><KeyCount>{len(page)}</KeyCount>'
                         f'<IsTruncated>{str(more).lower()}</IsTruncated>{token}{rows}{groups}</ListBucketResult>').encode()


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        pass  # clients of these tests hang up, too


server = Server(('127.0.0.1', 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_address[1], flush=True)
sys.stdin.read()
