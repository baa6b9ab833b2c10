#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Serves the files of a directory over HTTP, in the ways in which servers differ. The first part of the path says how:

  /range/FILE       ranges, a strong ETag           /plain/FILE     no ranges, a length
  /chunked/FILE     no ranges, no length            /nopin/FILE     ranges, but neither ETag nor time
  /time/FILE        ranges, Last-Modified only      /weak/FILE      ranges, a weak ETag and a time
  /cut/N/FILE       ranges; every answer ends after N bytes, and so does the connection
  /plaincut/N/FILE  the same without ranges
  /busy/N/FILE      ranges; the first N requests are answered with 503
  /change/N/FILE    ranges; from request N on it is another file, and says so in its ETag
  /lie/N/FILE       the same, but the ETag stays; the length differs
  /ignore/N/FILE    from request N on ranges are ignored: 200 with everything
  /html/FILE        a web page                      /status/N/FILE  this status
  /to/URL           a redirect to the rest of the path, as it stands
  /auth/FILE        ranges, for user 'user' with password 'secret word' only
  /slow/FILE        as /range, but 64 KiB every 50 ms

Every request is a line in LOG: a JSON object with path, range, authorization (or null), host.
  archive-server.py DIRECTORY LOG        prints its port, serves until its stdin is closed"""
import base64, email.utils, http.server, json, os, sys, threading, time

ROOT, LOG = sys.argv[1], sys.argv[2]
lock = threading.Lock()
seen = {}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *args):
        pass

    def note(self):
        with lock, open(LOG, 'a') as f:
            f.write(json.dumps({'path': self.path, 'range': self.headers.get('Range'), 'host': self.headers.get('Host'),
                                'match': self.headers.get('If-Match'), 'authorization': self.headers.get('Authorization')}) + '\n')
            seen[self.path] = seen.get(self.path, 0) + 1
            return seen[self.path]

    def simple(self, status, body=b'', **headers):
        self.send_response(status)
        for k, v in headers.items():
            self.send_header(k.replace('_', '-'), v)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        count = self.note()
        parts = self.path.split('?')[0].lstrip('/').split('/')
        how, number = parts[0], 0
        if how == 'to':
            return self.simple(302, Location=self.path[4:])
        if how == 'html':
            return self.simple(200, b'<!DOCTYPE html><html><body>Please log in</body></html>', Content_Type='text/html')
        if how in ('cut', 'plaincut', 'busy', 'change', 'lie', 'ignore', 'status'):
            number = int(parts[1])
            parts = parts[1:]
        if how == 'status':
            return self.simple(number, b'no')
        if how == 'busy' and count <= number:
            return self.simple(503, b'later', Retry_After='0')
        if how == 'auth':
            want = 'Basic ' + base64.b64encode(b'user:secret word').decode()
            if self.headers.get('Authorization') != want:
                return self.simple(401, b'no')
        path = os.path.join(ROOT, *parts[1:])
        changed = how in ('change', 'lie') and count >= number
        try:
            with open(path, 'rb') as f:
                self.send_file(f, how, number, count, changed)
        except FileNotFoundError:
            self.simple(404, b'no')

    def send_file(self, f, how, number, count, changed):
        size = os.fstat(f.fileno()).st_size + (1 if changed and how == 'lie' else 0)
        start, end, status = 0, size, 200
        wanted = self.headers.get('Range')
        ranged = how not in ('plain', 'chunked', 'plaincut') and not (how == 'ignore' and count >= number)
        etag = '"%x-%d"' % (size, changed and how == 'change')
        if wanted and ranged:
            first, last = wanted[6:].split('-')
            start, end, status = int(first), min(int(last) + 1, size), 206
            if start >= size:
                return self.simple(416)
        if how == 'range' and self.headers.get('If-Match') not in (None, etag):
            return self.simple(412)
        self.send_response(status)
        if how not in ('nopin', 'time', 'weak', 'chunked'):
            self.send_header('ETag', etag)
        if how == 'weak':
            self.send_header('ETag', 'W/' + etag)
        if how in ('time', 'weak'):
            self.send_header('Last-Modified', email.utils.formatdate(os.fstat(f.fileno()).st_mtime, usegmt=True))
        if status == 206:
            self.send_header('Content-Range', f'bytes {start}-{end - 1}/{size}')
        if how == 'chunked':
            self.send_header('Transfer-Encoding', 'chunked')
        else:
            self.send_header('Content-Length', str(end - start))
        self.end_headers()
        f.seek(start)
        if how == 'chunked':
            while data := f.read(100000):
                self.wfile.write(b'%x\r\n%s\r\n' % (len(data), data))
            self.wfile.write(b'0\r\n\r\n')
        elif how == 'slow':
            while start < end:
                data = f.read(min(65536, end - start))
                self.wfile.write(data)
                start += len(data)
                time.sleep(0.05)
        elif how in ('cut', 'plaincut') and end - start > number:
            self.wfile.write(f.read(number))
            self.close_connection = True
        else:
            self.wfile.flush()
            self.connection.sendfile(f, start, end - start)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *args):
        pass  # clients hang up


server = Server(('127.0.0.1', 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_address[1], flush=True)
sys.stdin.read()
