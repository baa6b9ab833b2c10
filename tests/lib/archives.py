# SPDX-License-Identifier: Apache-2.0
"""What the cases about archives share: the server, archives written byte by byte, and creating from them."""
import io, json, os, struct, subprocess, sys, tarfile, zlib
from gridtest import *

HERE = os.path.dirname(os.path.abspath(__file__))


class Server:
    """archive-server.py on a directory."""
    def __init__(self, root='www'):
        self.root, self.log = os.path.abspath(root), os.path.abspath('requests.log')
        os.makedirs(self.root, exist_ok=True)
        self.process = subprocess.Popen([sys.executable, os.path.join(HERE, 'archive-server.py'), self.root, self.log],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    def url(self, path, host='127.0.0.1', user=''):
        return f'http://{user}{host}:{self.port}/{path}'

    def put(self, name, data):
        with open(os.path.join(self.root, name), 'wb') as f:
            f.write(data)
        return name

    def requests(self, part=''):
        """What was asked for since this was called last."""
        try:
            with open(self.log) as f:
                rows = [json.loads(line) for line in f]
            os.unlink(self.log)
        except FileNotFoundError:
            rows = []
        return [r for r in rows if part in r['path']]

    def stop(self):
        self.process.stdin.close()
        self.process.wait(20)


def tar(entries, fmt=tarfile.PAX_FORMAT, end=True):
    """entries: (name, content | None, {attributes of TarInfo}). -> bytes of the archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w', format=fmt) as t:
        for name, data, more in entries:
            i = tarfile.TarInfo(name)
            i.mtime, i.mode = 1234567890, 0o644
            for k, v in more.items():
                setattr(i, k, v)
            if data is not None and i.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
                i.size = len(data)
            t.addfile(i, io.BytesIO(data) if data is not None else None)
        size = t.offset
    return out.getvalue() if end else out.getvalue()[:size]


def deflate(data):
    z = zlib.compressobj(6, zlib.DEFLATED, -15)
    return z.compress(data) + z.flush()


def zipped(members, comment=b'', cd_extra=None, end=None):
    """A zip written byte by byte. members: dicts with name (bytes), data, and whatever should be odd about it:
    method flags crc size packed local_name local_flags offset external host extra raw (packed bytes) descriptor."""
    out, central = bytearray(), bytearray()
    for m in members:
        data, name = m.get('data', b''), m['name']
        method = m.get('method', 8)
        raw = m.get('raw', deflate(data) if method == 8 else data)
        crc, size, packed = m.get('crc', zlib.crc32(data)), m.get('size', len(data)), m.get('packed', len(raw))
        flags, local_name = m.get('flags', 0), m.get('local_name', name)
        offset = m.get('offset', len(out))
        if 'offset' not in m:
            later = m.get('descriptor')
            shown = (0, 0, 0) if later else (crc, packed, size)
            out += struct.pack('<IHHHHHIIIHH', 0x04034b50, 20, m.get('local_flags', flags), method, 0x6000, 0x4a21, *shown,
                               len(local_name), 0) + local_name + raw
            if later:
                out += struct.pack('<IIII', 0x08074b50, crc, packed, size)
        extra = m.get('extra', b'')
        central += struct.pack('<IBBHHHHHIIIHHHHHII', 0x02014b50, 20, m.get('host', 3), 20, flags, method, 0x6000, 0x4a21, crc,
                               packed & 0xffffffff, size & 0xffffffff, len(name), len(extra), 0, m.get('disk', 0), 0,
                               m.get('external', 0o100644 << 16), offset & 0xffffffff) + name + extra
    at = len(out)
    out += central
    out += end if end is not None else struct.pack('<IHHHHIIH', 0x06054b50, 0, 0, len(members), len(members), len(central), at, len(comment)) + comment
    return bytes(out)


def create(url, name='x', env=None, check=True, *args):
    return grid('datastore', 'create', url, '--name', name, *args, env=env, check=check)


def made(name):
    """versions(), also where there is no store yet."""
    return versions(name) if os.path.exists(os.environ['GRID_STORE'][len('file://'):]) else {}


def refused(url, *words, code=1, args=()):
    """Creating from `url` fails with one sentence that has all of `words` in it, and nothing becomes visible."""
    p = grid('datastore', 'create', url, '--name', 'refused', *args, check=False)
    lines = [l for l in p.stderr.splitlines() if not l.startswith('grid: storing')]
    if p.returncode != code:
        fail(f'{url}: exit code {p.returncode}, not {code}\n{p.stderr}')
    for word in words:
        if word not in lines[-1]:
            fail(f'{url}: {word!r} is not in: {p.stderr}')
    if any(r['status'] == 'succeeded' for r in made('refused').values()):
        fail(f'{url}: a version became visible')
    grid('datastore', 'clearcache')


def exported(name, out='out'):
    subprocess.run(['rm', '-rf', out], check=True)
    grid('datastore', 'export', name, out)
    return snapshot(out)


def unpacked(entries):
    """{path: content} of a version's export."""
    found = {}
    for top, dirs, files in os.walk(b'out'):
        for name in files:
            path = os.path.join(top, name)
            if os.path.islink(path):
                found[path[4:]] = ('->', os.readlink(path))
            else:
                with open(path, 'rb') as f:
                    found[path[4:]] = f.read()
    return found
