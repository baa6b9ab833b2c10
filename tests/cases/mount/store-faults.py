#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 240
"""Mounts of a bucket that fails under its readers: 503, silence, bad framing, wrong bits, each seen to have happened. Readers
wait and go on, or get an error within the time given; they never get a wrong byte, and keep no thread of the server: whoever
asks for what is here is answered meanwhile. Also: the server killed, the mount taken away, readers interrupted, all while
reads are parked."""
import json, mmap, os, signal, subprocess, sys, threading, time, urllib.request
sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests/lib'))
from gridtest import *

if not os.path.exists('/dev/fuse'):
    skip('there is no /dev/fuse')
if os.getuid() and subprocess.run(['sh', '-c', 'command -v fusermount3'], stdout=subprocess.DEVNULL).returncode:
    skip('an ordinary user needs fusermount3')

WAIT = 60  # seconds that something which must happen may take on a loaded machine
FILES, SMALL, LARGE = 120, 40000, 3 << 20
fake = subprocess.Popen([sys.executable, os.path.join(os.environ['TOP'], 'tests/lib/fake-s3.py'), '.'], stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE, text=True)
url = f'http://127.0.0.1:{fake.stdout.readline().strip()}'
os.environ.update(AWS_ENDPOINT_URL=url, AWS_REGION='us-east-1', AWS_ACCESS_KEY_ID='key', AWS_SECRET_ACCESS_KEY='secret',
                  GRID_STORE='s3://b/grid')


def rules(*new):
    """From now on; -> how often those before fired."""
    return int(urllib.request.urlopen(urllib.request.Request(url + '/_rules', json.dumps(new).encode(), method='POST')).read())


def fault(**what):
    return dict(what, match=dict({'method': 'GET', 'path': '/b/grid/p/'}, **what.get('match', {})))


def content(name):
    return random.Random(name).randbytes(LARGE if name.startswith('large') else SMALL)


def until(what, fn):
    end = time.time() + WAIT
    while time.time() < end:
        if (got := fn()):
            return got
        time.sleep(0.05)
    fail(f'{what}: not within {WAIT} s')


NAMES = [f'small{i:03}' for i in range(FILES)] + ['large0', 'large1', 'large2']
os.mkdir('tree')
for n in NAMES:
    with open(f'tree/{n}', 'wb') as f:
        f.write(content(n))
grid('datastore', 'create', 'tree', '--name', 't')
unread = iter(NAMES)  # what no test has read yet


def gone(pid):
    def is_gone():
        try:
            with open(f'/proc/{pid}/stat') as f:
                return f.read().rsplit(')')[1].split()[0] == 'Z'
        except OSError:
            return True
    until('the server has gone', is_gone)


class Mount:
    def __init__(self, *options):
        os.makedirs('mnt', exist_ok=True)
        grid('datastore', 'mount', 't', 'mnt', '--mode', 'fuse', '--cache-size', 'none', '--prefetch', 'none', *options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        rules()
        if os.path.ismount('mnt'):
            supervisor = self.supervisor()
            grid('datastore', 'unmount', 'mnt')
            gone(supervisor)  # else the next mount may find it, and what it remembers

    def supervisor(self):
        rows = json.loads(grid('datastore', 'mounts', '--json').stdout)
        return rows[0]['server'] if rows else 0


class Reader(threading.Thread):
    """Of one file; `error` is its errno, 0 when the bytes were right."""
    def __init__(self, name, size=-1):
        super().__init__(daemon=True)
        self.name, self.size, self.error = name, size, None
        self.start()

    def run(self):
        try:
            with open(f'mnt/{self.name}', 'rb', buffering=0) as f:
                data = b''
                while len(data) != self.size and (more := f.read(1 << 20 if self.size < 0 else self.size - len(data))):
                    data += more
            want = content(self.name)
            self.error = 0 if data == (want if self.size < 0 else want[:self.size]) else 'wrong bytes'
        except OSError as e:
            self.error = e.errno

    def ended(self, error=0):
        self.join(WAIT)
        if self.is_alive():
            fail(f'a reader of {self.name} still waits')
        if self.error != error:
            fail(f'a reader of {self.name} got {self.error}')


def log():
    place = os.environ.get('GRID_RUNTIME_DIR') or fail('no runtime directory')
    return ''.join(open(f'{place}/log/{n}', errors='replace').read() for n in os.listdir(f'{place}/log'))


def test_outage():
    """503 for a while: forty readers wait, the names and what was read are there all the same, and then all go on."""
    with Mount():
        first = next(unread)
        Reader(first).ended()
        rules(fault(status=503, code='SlowDown', times=-1))
        readers = [Reader(next(unread)) for _ in range(40)]
        time.sleep(2)
        end = threading.Thread(target=lambda: (os.stat('mnt/' + first), os.listdir('mnt'), Reader(first).ended()), daemon=True)
        end.start()
        end.join(WAIT)
        if end.is_alive():
            fail('nobody is answered while others wait')
        if not all(r.is_alive() for r in readers):
            fail('a reader did not wait')
        if rules() < 2:
            fail('the bucket did not fail')
        for r in readers:
            r.ended()


def test_silence():
    """No answer at all: EIO after --io-timeout, with a line in the log; and when the bucket speaks again, all works."""
    with Mount('--io-timeout', '2s'):
        name = next(unread)
        rules(fault(stall_ms=7000, times=-1))
        r = Reader(name)
        r.ended(5)
        if 'no answer for 2 s' not in log():
            fail(f'the log does not say why: {log()}')
        if rules() < 1:
            fail('the bucket was not silent')
        until('reads after the silence', lambda: (again := Reader(name)).join(WAIT) or again.error == 0)


def test_framing():
    """Answers that are cut, too long, of another range, of everything, without end: never a wrong byte."""
    with Mount():
        for wrong in ({'truncate': 1000}, {'surplus': 10}, {'whole': True}, {'range': 'bytes 0-9/10'}, {'drop': 'after'},
                      {'drop': 'before'}, {'length': 7}, {'status': 500, 'code': 'InternalError'}):
            rules(fault(**wrong))
            Reader(next(unread)).ended()
            if rules() != 1:
                fail(f'{wrong} did not happen')


def test_flipped():
    """A bit that is wrong: once, nobody notices; always: EIO for what it stands in, and nothing else."""
    objects = []
    for at in (100000, 1 << 20):
        with Mount():
            rules(fault(flip=at, times=-1))
            readers = [Reader(n) for n in NAMES[:FILES:7] + ['large0', 'large1', 'large2']]
            for r in readers:
                r.join(WAIT)
            bad = [r.name for r in readers if r.error == 5]
            if any(r.error not in (0, 5) for r in readers):
                fail(f'{[(r.name, r.error) for r in readers]}')
            objects += bad
            if rules() < 1:
                fail('nothing was read')
            for n in bad:  # another mount would see it; this one asks again, too
                Reader(n).ended()
    if not objects or len(objects) > 4:
        fail(f'wrong bits hurt {objects}')
    if 'does not match its digest' not in log():
        fail('the log names no damage')


def test_killed():
    """kill -9 of the server while reads are parked: the next one is asked again."""
    with Mount() as m:
        readers = [Reader(NAMES[i]) for i in range(3)]
        for r in readers:
            r.ended()
        rules(fault(status=503, code='SlowDown', times=-1))
        names = [f'small{i:03}' for i in range(60, 80)]
        readers = [Reader(n) for n in names]
        time.sleep(1)
        with open(f'/proc/{m.supervisor()}/task/{m.supervisor()}/children') as f:
            child = int(f.read().split()[0])
        os.kill(child, signal.SIGKILL)
        time.sleep(1)
        if rules() < 1:
            fail('the bucket did not fail')
        for r in readers:
            r.ended()


def test_interrupted():
    """Who waits for a read past the page cache is let go when it is killed or interrupted; and only then."""
    code = ("import mmap, os, signal, sys\n"
            "if len(sys.argv) > 2:\n"
            "    signal.signal(signal.SIGALRM, lambda *_: None)\n"
            "    signal.siginterrupt(signal.SIGALRM, False)\n"
            "    signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)\n"
            "fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)\n"
            "b = mmap.mmap(-1, 65536)\n"
            "print('reading', flush=True)\n"
            "n = os.preadv(fd, [b], 0)\n"
            "signal.setitimer(signal.ITIMER_REAL, 0)\n"
            "sys.stdout.buffer.write(b[:n])\n")
    with Mount():
        rules(fault(status=503, code='SlowDown', times=-1))
        for number in (signal.SIGKILL, signal.SIGINT):
            p = subprocess.Popen([sys.executable, '-c', code, f'mnt/{next(unread)}'], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            p.stdout.readline()
            time.sleep(0.5)
            p.send_signal(number)
            try:
                p.wait(20)
            except subprocess.TimeoutExpired:
                rules()
                p.wait(WAIT)
                fail(f'signal {number} does not end a reader')
        name = next(unread)
        p = subprocess.Popen([sys.executable, '-c', code, f'mnt/{name}', 'timer'], stdout=subprocess.PIPE)
        p.stdout.readline()
        time.sleep(1)
        if rules() < 2:
            fail('the bucket did not fail')
        out, _ = p.communicate(timeout=WAIT)
        if p.returncode or out != content(name)[:65536]:
            fail(f'a timer disturbs a reader: {p.returncode}, {len(out)} bytes')


def test_taken_away():
    """Unmounted lazily while reads are parked; the readers are killed; nothing is left."""
    with Mount() as m:
        supervisor = m.supervisor()
        rules(fault(status=503, code='SlowDown', times=-1))
        cats = [subprocess.Popen(['cat', f'mnt/{next(unread)}'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(5)]
        time.sleep(1)
        grid('datastore', 'unmount', '--lazy', 'mnt', check=False)
        for p in cats:
            p.kill()
            p.wait(WAIT)
        gone(supervisor)
        if rules() < 1:
            fail('the bucket did not fail')


for test in (test_interrupted, test_taken_away, test_outage, test_silence, test_framing, test_flipped, test_killed):
    begin = time.time()
    test()
    print(f'{test.__name__}: {time.time() - begin:.1f} s')
fake.stdin.close()
fake.wait()
