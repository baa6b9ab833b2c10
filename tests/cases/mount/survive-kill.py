#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 1500
"""A mount outlives its server: readers of eight kinds compare every byte with a generator while the server
proper is killed, stopped, and killed at the steps of its takeover; then its supervisor dies, then both.
With arguments it is the readers: survive-kill.py readers DIR COUNTS STOP. MODE says how it is mounted."""
import ctypes, errno, json, mmap, os, random, signal, subprocess, sys, time

SMALL, BIG, BIG_SIZE = 400, 4, 6 << 20
SOAK = os.environ.get('SOAK') == '1'
MODE = os.environ.get('MODE', 'fuse')
WAIT = 40  # seconds that something which must happen may take on a loaded machine


def bytes_of(name, size):
    return random.Random(name).randbytes(size)


def size_of(name):
    return BIG_SIZE if name.startswith('big') else random.Random('size' + name).randrange(1, 40000)


NAMES = [f'small{i}' for i in range(SMALL)]
BIGS = [f'big{i}' for i in range(BIG)]


# ---- the readers

def check(got, want, what):
    if got != want:
        raise AssertionError(f'{what}: wrong bytes')


def forget(fd):
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def read_all(fd, size):
    """What comes before an error is right, and short."""
    got = b''
    while len(got) < size:
        more = os.read(fd, size - len(got))
        if not more:
            break
        got += more
    return got


def reader(kind, top, rng, cache):
    """One round."""
    name = rng.choice(BIGS if kind in ('read', 'direct', 'mmap') else NAMES)
    path = f'{top}/{name}'
    if kind in ('read', 'direct', 'mmap') and name not in cache:
        cache[name] = bytes_of(name, BIG_SIZE)
    want = cache.get(name)
    if kind == 'readdir':
        check(sorted(os.listdir(top)), sorted(NAMES + BIGS), 'names')
        return
    if kind == 'stat':
        check(os.stat(path).st_size, size_of(name), 'size')
        try:
            os.stat(path + '.none')
        except FileNotFoundError:
            return
        raise AssertionError('a name that is not there')
    fd = os.open(path, os.O_RDONLY | (os.O_DIRECT if kind == 'direct' else 0))
    try:
        if kind == 'read':
            forget(fd)
            at = rng.randrange(BIG_SIZE >> 20) << 20
            os.lseek(fd, at, os.SEEK_SET)
            for o in range(at, min(at + (1 << 20), BIG_SIZE), 1 << 16):
                check(read_all(fd, 1 << 16), want[o:o + (1 << 16)], f'{name} at {o}')
        elif kind == 'direct':
            buffer = mmap.mmap(-1, 1 << 17)
            at = rng.randrange((BIG_SIZE >> 17)) << 17
            n = os.preadv(fd, [buffer], at)
            check(buffer[:n], want[at:at + n], f'{name} at {at}')
            if n != 1 << 17:
                raise AssertionError('a short read')
        elif kind == 'mmap':
            forget(fd)
            with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as m:
                for _ in range(8):
                    o = rng.randrange(BIG_SIZE - 5000)
                    check(m[o:o + 5000], want[o:o + 5000], f'{name} at {o}')
        elif kind == 'small':
            forget(fd)
            check(read_all(fd, 1 << 20), bytes_of(name, size_of(name)), name)
    finally:
        os.close(fd)


def readers(top, counts, stop):
    """Eight of them, until `stop` is there. Each appends its number of rounds to `counts` as it goes."""
    kinds = ['read', 'direct' if MODE == 'fuse' else 'read', 'mmap', 'readdir', 'stat', 'open', 'small', 'direct' if MODE == 'fuse' else 'mmap']
    pids = {}
    for number, kind in enumerate(kinds):
        pid = os.fork()
        if pid == 0:
            rng, cache, rounds, worst = random.Random(number), {}, 0, 0
            with open(f'{counts}.{number}', 'w') as f:
                try:
                    while not os.path.exists(stop):
                        begin = time.monotonic()
                        reader(kind, top, rng, cache)
                        worst = max(worst, time.monotonic() - begin)
                        rounds += 1
                        f.seek(0)
                        f.write(f'{rounds} {kind} {worst:.2f}')
                        f.flush()
                except (OSError, AssertionError) as e:
                    print(f'{kind}: {e!r}', flush=True)
                    os._exit(1)
            os._exit(0)
        pids[pid] = kind
    bad = 0
    while pids:
        pid, status = os.wait()
        kind = pids.pop(pid)
        if status:
            print(f'{kind}: ended with {status:#x}', flush=True)
            bad = 1
    return bad


if sys.argv[1:2] == ['readers']:
    sys.exit(readers(*sys.argv[2:5]))

# ---- the test

GRID = os.environ['GRID']
ROOT = os.geteuid() == 0


def skip(why):
    print(why)
    sys.exit(77)


def fail(why):
    print('FAILED:', why)
    for d, _, files in os.walk('runtime/log'):
        for f in files:
            with open(f'{d}/{f}') as log:
                print(''.join(log.readlines()[-15:]))
    sys.exit(1)


def grid(*args, check=True):
    return subprocess.run([GRID, *args], check=check, capture_output=True, text=True)


def until(what, condition, seconds=WAIT):
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            fail(f'{what}: not within {seconds} s')
        time.sleep(0.01)


def supervisor_pid():
    found = json.loads(grid('datastore', 'mounts', '--json').stdout)
    return found[0]['server'] if found else 0


def child_of(pid):
    try:
        with open(f'/proc/{pid}/task/{pid}/children') as f:
            words = f.read().split()
    except OSError:
        return 0
    return int(words[0]) if words else 0


def is_alive(pid):
    try:
        with open(f'/proc/{pid}/stat') as f:
            return f.read().rsplit(')', 1)[1].split()[0] not in 'ZX'
    except OSError:
        return False


def name_of(pid):
    with open(f'/proc/{pid}/comm') as f:
        return f.read().strip()


def weight_of(pid):
    with open(f'/proc/{pid}/status') as f:
        fields = dict(line.split(':\t', 1) for line in f if ':\t' in line)
    return len(os.listdir(f'/proc/{pid}/fd')), int(fields['Threads']), int(fields['VmRSS'].split()[0])


class Readers:
    """The eight, in a mount or in a run."""

    def __init__(self, argv, top):
        self.counts, self.stop_file = os.path.abspath('counts'), os.path.abspath('stop')
        if os.path.exists(self.stop_file):
            os.unlink(self.stop_file)
        me = [sys.executable, os.path.abspath(__file__), 'readers', top, self.counts, self.stop_file]
        for i in range(8):
            with open(f'{self.counts}.{i}', 'w'):
                pass
        self.output = open('readers.out', 'w+')
        self.process = subprocess.Popen(argv + me, stdout=self.output, stderr=subprocess.STDOUT)

    def rounds(self):
        if self.process.poll() is not None:
            self.output.seek(0)
            fail('the readers ended: ' + self.output.read())
        found = []
        for i in range(8):
            with open(f'{self.counts}.{i}') as f:
                found.append(int((f.read().split() or ['0'])[0]))
        return found

    def progress(self, what):
        """Each of them gets on."""
        before = self.rounds()
        until(f'{what}: every reader gets on', lambda: all(a > b for a, b in zip(self.rounds(), before)))

    def end(self):
        open(self.stop_file, 'w').close()
        try:
            code = self.process.wait(WAIT)
        except subprocess.TimeoutExpired:
            fail('the readers hang')
        self.output.seek(0)
        if code:
            fail(f'the readers: exit code {code}: {self.output.read()}')
        worst = []
        for i in range(8):
            with open(f'{self.counts}.{i}') as f:
                worst.append(f.read().split())
        print('  rounds and longest wait (s):', ', '.join(f'{k} {r} {w}' for r, k, w in worst))


def drop_caches():
    if ROOT:
        try:
            with open('/proc/sys/vm/drop_caches', 'w') as f:
                f.write('3')
        except OSError:
            pass


def new_child(supervisor, old):
    return until('a new server', lambda: child_of(supervisor) not in (0, old) and child_of(supervisor))


def kill_many(supervisor, crowd, count):
    random.seed(1)
    crowd.progress('at the beginning')
    before, seen = weight_of(supervisor), set()
    for i in range(count):
        child = until('a server', lambda: child_of(supervisor))
        if name_of(supervisor) != 'grid-supervise':
            fail(f'the supervisor is called {name_of(supervisor)}')
        seen.add(child)
        time.sleep(random.choice([0, 0.001, 0.01, 0.05, random.random() * 0.4]))
        if i % 4 == 0 or MODE != 'fuse':  # else the page cache below answers for the server
            drop_caches()
        os.kill(child, signal.SIGKILL)
        new_child(supervisor, child)
    if len(seen) != count:
        fail(f'only {len(seen)} servers were killed')
    crowd.progress(f'after {count} kills')
    after = weight_of(supervisor)
    if after[:2] != before[:2] or after[2] > before[2] + 1024:
        fail(f'descriptors, threads, KiB of the supervisor: first {before}, then {after}')
    print(f'  {count} kills; descriptors, threads, KiB of the supervisor: {before} before, {after} after')


def stop_one(supervisor, crowd):
    child = child_of(supervisor)
    os.kill(child, signal.SIGSTOP)
    new_child(supervisor, child)
    if is_alive(child):
        fail('the stopped server still lives')
    crowd.progress('after SIGSTOP')


# ---- killing it at the n-th system call of its life

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long
SYSCALL, DETACH, GETEVENTMSG, SEIZE, INTERRUPT = 24, 17, 0x4201, 0x4206, 0x4207
TRACE_FORK, WALL = 2 | 1, 0x40000000


def ptrace(request, pid, data=0):
    if libc.ptrace(request, pid, None, data) < 0:
        raise OSError(ctypes.get_errno(), 'ptrace')


def kill_at_step(supervisor, n):
    """Kill the server; kill the next one at its n-th stop at a system call. False if it never came to that."""
    ptrace(SEIZE, supervisor, TRACE_FORK)
    os.kill(child_of(supervisor), signal.SIGKILL)
    while True:
        _, status = os.waitpid(supervisor, WALL)
        if status >> 16:
            break
        ptrace(7, supervisor, status >> 8 & 0xff)  # CONT, with whatever signal it was
    message = ctypes.c_ulong()
    ptrace(GETEVENTMSG, supervisor, ctypes.addressof(message))
    child = message.value
    os.waitpid(child, WALL)
    ptrace(DETACH, supervisor)
    for _ in range(n):
        ptrace(SYSCALL, child)
        end = time.monotonic() + 1
        while os.waitpid(child, WALL | os.WNOHANG)[0] == 0:
            if time.monotonic() > end:  # it waits for requests: the takeover is over
                ptrace(INTERRUPT, child)
                os.waitpid(child, WALL)
                ptrace(DETACH, child)
                return False
            time.sleep(0.0002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, WALL)
    return True


def kill_at_steps(supervisor, crowd, stride):
    n = 1
    try:
        while kill_at_step(supervisor, n):
            crowd.progress(f'killed at step {n}')
            time.sleep(0.3)  # a life that is no failure
            n += stride
    except PermissionError:
        print('  no steps: processes may not be traced here')
        return
    if n < 20:
        fail(f'the takeover has {n} steps only: nothing was tested')
    crowd.progress('after the steps')
    print(f'  killed at one in {stride} of {n} steps of the takeover')


# ---- the kernel's count of requests

def waiting(device):
    if ROOT and not os.path.ismount('fusectl'):
        os.makedirs('fusectl', exist_ok=True)
        if libc.mount(b'fusectl', b'fusectl', b'fusectl', 0, None) < 0:
            return 0  # not in this kernel
    try:
        with open(f'fusectl/{os.minor(device)}/waiting') as f:
            return int(f.read())
    except FileNotFoundError:
        return 0 if not ROOT else fail('the kernel does not know the connection')


def expect_end(path):
    """Whatever is asked, the answer comes within 5 seconds; and it is soon the one of a mount without a server."""
    says, asked = 'Transport endpoint is not connected', [['stat', path]]
    flags = ['iflag=direct'] if MODE == 'fuse' else []
    if MODE != 'fuse':  # its root is in memory, and EROFS has one word for all that it cannot read
        says, asked = 'Input/output error', []
        drop_caches()
    for argv in asked + [['dd', f'if={path}/big0', *flags, 'bs=128k', 'of=/dev/null']]:
        end = time.monotonic() + 5
        while True:
            try:
                p = subprocess.run(argv, capture_output=True, text=True, timeout=5, env=dict(os.environ, LC_ALL='C'))
            except subprocess.TimeoutExpired:
                fail(f'{argv} hangs')
            if says in p.stderr:
                break
            if time.monotonic() > end:
                fail(f'{argv}: {p.returncode} {p.stderr}')


def test_mount():
    os.mkdir('mnt')
    p = grid('datastore', 'mount', 't', 'mnt', '--mode', MODE, check=False)
    if p.returncode:
        skip(f'cannot mount here: {p.stderr}')
    top = os.path.abspath('mnt')
    print('mount:')
    crowd = Readers([], top)
    supervisor, device = supervisor_pid(), os.stat(top).st_dev
    kill_many(supervisor, crowd, 500 if SOAK else 50 if ROOT and MODE == 'fuse' else 20)
    stop_one(supervisor, crowd)
    kill_at_steps(supervisor, crowd, 1 if SOAK else 11 if MODE == 'fuse' else 40)
    child = child_of(supervisor)
    os.kill(supervisor, signal.SIGKILL)
    until('the server takes the record over', lambda: supervisor_pid() == child)
    crowd.progress('without a supervisor')
    crowd.end()
    if MODE == 'fuse':  # else it has another number
        until('nothing waits in the kernel', lambda: waiting(device) == 0)
    subprocess.run(['umount', 'fusectl'], capture_output=True)
    os.kill(child, signal.SIGKILL)
    until('it is gone', lambda: not is_alive(child))
    expect_end(top)
    grid('datastore', 'unmount', 'mnt')
    with open('/proc/self/mountinfo') as f:
        if top in f.read():
            fail('the mount is still there')
    os.rmdir('mnt')


def test_unmount_while_dead():
    """Unmounted at the moment when its server has died: everything ends."""
    os.mkdir('mnt')
    for _ in range(5):
        grid('datastore', 'mount', 't', 'mnt', '--mode', MODE)
        supervisor = supervisor_pid()
        os.kill(child_of(supervisor), signal.SIGKILL)
        grid('datastore', 'unmount', 'mnt')
        until('the supervisor ends', lambda: not is_alive(supervisor))
    os.rmdir('mnt')


def test_run():
    print('run:')
    crowd = Readers([GRID, 'run', '--datastore_name', 't', '--mode', MODE, '--'], '/datastores/t')
    until('the run', lambda: crowd.process.poll() is not None or supervisor_pid())
    if crowd.process.poll() is not None:
        crowd.output.seek(0)
        print('  cannot attach here:', crowd.output.read())
        return
    supervisor = supervisor_pid()
    kill_many(supervisor, crowd, 100 if SOAK else 20)
    stop_one(supervisor, crowd)
    child = child_of(supervisor)
    os.kill(supervisor, signal.SIGKILL)
    until('the server takes the record over', lambda: supervisor_pid() == child)
    crowd.progress('without a supervisor')
    crowd.end()
    until('the server ends with its run', lambda: not is_alive(child))

    crowd = Readers([GRID, 'run', '--datastore_name', 't', '--mode', MODE, '--'], '/datastores/t')
    until('the run', supervisor_pid)
    crowd.progress('at the beginning')
    supervisor = supervisor_pid()
    child = child_of(supervisor)
    os.kill(supervisor, signal.SIGKILL)
    os.kill(child, signal.SIGKILL)
    def ends():
        with open('readers.out') as f:
            text = f.read()
        if MODE != 'fuse':
            drop_caches()
            return text.count(f'({errno.EIO},')
        return text.count(f'({errno.ENOTCONN},') + text.count(f'({errno.ECONNABORTED},')

    # Those that read around the page cache; others may find all they ask for in it.
    until('readers end by an error', lambda: ends() >= 2)
    open(crowd.stop_file, 'w').close()
    try:
        code = crowd.process.wait(WAIT)
    except subprocess.TimeoutExpired:
        fail('readers hang without servers')
    with open('readers.out') as f:
        text = f.read()
    if code != 1 or 'wrong bytes' in text:
        fail(f'without servers the readers end with {code}: {text}')


def main():
    if not os.path.exists('/dev/fuse'):
        skip('there is no /dev/fuse')
    os.mkdir('tree')
    for name in NAMES + BIGS:
        with open(f'tree/{name}', 'wb') as f:
            f.write(bytes_of(name, size_of(name)))
    grid('datastore', 'create', 'tree', '--name', 't')
    test_mount()
    test_unmount_while_dead()
    test_run()
    if json.loads(grid('datastore', 'mounts', '--json').stdout):
        fail('a mount is left')


main()
