# SPDX-License-Identifier: Apache-2.0
"""Buckets: the client against a bucket server of our own (bench/bucket), which costs little CPU and can hold answers
back (20 ms) and slow connections down (90 MB/s). It is no network: it has no slow start and loses nothing. The raw
client (bench/raw-get) asks it for the same bytes, with each of several numbers of requests at once: the best counts."""
import contextlib, json, os, random, re, shutil, subprocess, time

from .common import BENCH, GRID, READ_FILES, Run, file_big, fresh, header, median, report, synthetic, tree_small

AT_ONCE = [4, 8, 16, 32, 64, 128]


class Bucket:
    """A bucket server on `root`; its buckets are the directories in it."""
    def __init__(self, root, delay_ms=0, rate_mb=0):
        args = [os.path.join(BENCH, 'bucket')]
        args += ['--delay-ms', str(delay_ms)] if delay_ms else []
        args += ['--rate-mb', str(rate_mb)] if rate_mb else []
        self.process = subprocess.Popen(args + [root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = f'http://127.0.0.1:{int(self.process.stdout.readline())}'

    def stop(self):
        out, _ = self.process.communicate()
        return json.loads(out)


@contextlib.contextmanager
def bucket(root, **slow):
    b = Bucket(root, **slow)
    try:
        yield b
    finally:
        b.stop()


def far_env(b, base, store='s3://b/grid'):
    return dict(os.environ, GRID_STORE=store, AWS_ENDPOINT_URL=b.url, AWS_ACCESS_KEY_ID='bench', AWS_SECRET_ACCESS_KEY='bench',
                AWS_REGION='us-east-1', GRID_CACHE=base + '/cache', GRID_RUNTIME_DIR=base + '/run', GRID_CONFIG_SYSTEM='/nonexistent',
                XDG_CONFIG_HOME=base + '/config')


def raw(b, ranges, at_once=None):
    """The fastest of several concurrencies; ranges are (path, offset, size)."""
    text = ''.join(f'{p} {o} {n}\n' for p, o, n in ranges)
    best = None
    for n in at_once or AT_ONCE:
        out = subprocess.run([os.path.join(BENCH, 'raw-get'), b.url, str(n)], input=text, stdout=subprocess.PIPE, text=True, check=True).stdout
        r = dict(json.loads(out), at_once=n)
        if best is None or r['wall_s'] < best['wall_s']:
            best = r
    return best


def far_listing(opt):
    header('listing of 100 names x 100 versions in a bucket, 20 ms a request')
    base = fresh(os.path.join(opt.dir, 'far-listing'))
    names, count = (10, 10) if opt.quick else (100, 100)
    memory = fresh(f'/dev/shm/grid-bench-{os.getpid()}')
    for i in range(names):
        for _ in range(count):
            synthetic(opt, memory + '/b', f'name{i:03}', 1, 1, 1, 1)
    cold, again = [], []
    with bucket(memory, delay_ms=20) as b:
        env = far_env(b, base, 's3://b')
        for _ in range(opt.rounds):
            shutil.rmtree(base + '/cache', ignore_errors=True)
            for times in cold, again:
                r = Run([GRID, 'datastore', '--global', '--json'], env)
                times.append(r.wall)
                assert len(json.loads(r.out)) == names * count
    report('far-listing', 'nothing known', median(cold), 's', 2)
    report('far-listing', 'again', median(again), 's', 0.3)
    shutil.rmtree(memory)
    shutil.rmtree(base)


def far_create_big(opt):
    header('create from one 4-GB file, store in a bucket; the raw client reads as many bytes')
    big = file_big(opt)
    base, root = fresh(os.path.join(opt.dir, 'far-big')), fresh(f'/dev/shm/grid-bench-{os.getpid()}')
    os.makedirs(root + '/b')
    Run(f'cat {big} >/dev/null', shell=True)
    wall, cpu, floor, curl = [], [], [], []
    with bucket(root) as b:
        env = far_env(b, base)
        for i in range(opt.rounds):
            start = time.monotonic()
            r = Run([GRID, 'datastore', 'create', big, '--name', f'big{i}'], env)
            wall.append(r.wall)
            cpu.append(r.cpu)
            for p in os.listdir(root + '/b/grid/p'):
                shutil.rmtree(f'{root}/b/grid/p/{p}')
            # Eight at once, 16 MiB a request: what a client does that only sends.
            size = os.path.getsize(big)
            parts = ' '.join(f'{{ dd if={big} bs=16M skip={k * size // 8 >> 24} count={size // 8 >> 24} status=none | '
                             f'curl -sf -o /dev/null -X PUT -T - -H "Content-Length: {(size // 8 >> 24) << 24}" -H Expect: -H Transfer-Encoding: '
                             f'{b.url}/b/raw/{k}; }} &' for k in range(8))
            raw_run = Run(parts + ' wait', shell=True)
            floor.append(raw_run.wall)
            curl.append(raw_run.cpu)
            shutil.rmtree(root + '/b/raw')
    report('far-create-big', 'wall: eight curls that put the same bytes / create', median(floor) / median(wall), 'x', 0.9, 'higher',
           f'{median(floor):.2f} s / {median(wall):.2f} s')
    report('far-create-big', 'cpu: create, seconds a GB', median(cpu) / (os.path.getsize(big) / 1e9), 's', note=f'curls {median(curl) / (os.path.getsize(big) / 1e9):.2f} s')
    shutil.rmtree(root)
    shutil.rmtree(base)


SCENARIOS = dict(far_listing=far_listing, far_create_big=far_create_big)
