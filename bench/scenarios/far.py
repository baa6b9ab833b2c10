# SPDX-License-Identifier: Apache-2.0
"""Buckets: the client against a bucket server of our own (bench/bucket), which costs little CPU and can hold answers
back (20 ms) and slow connections down (90 MB/s). It is no network: it has no slow start and loses nothing. The raw
client (bench/raw-get) asks it for the same bytes, with each of several numbers of requests at once: the best counts."""
import contextlib, json, os, random, re, shutil, subprocess, sys, time

from .common import BENCH, GRID, READ_FILES, TOP, Run, file_big, fresh, header, median, report, report_peak, synthetic, tree_small
from .rounds import longest_chain, read_log

AT_ONCE = [4, 8, 16, 32, 64, 128]


class Bucket:
    """A bucket server on `root`; its buckets are the directories in it."""
    def __init__(self, root, delay_ms=0, rate_mb=0, log=None):
        args = [os.path.join(BENCH, 'bucket')]
        args += ['--delay-ms', str(delay_ms)] if delay_ms else []
        args += ['--rate-mb', str(rate_mb)] if rate_mb else []
        args += ['--log', log] if log else []
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
    runs, floor, curl = [], [], []
    with bucket(root) as b:
        env = far_env(b, base)
        for i in range(opt.rounds):
            runs.append(Run([GRID, 'datastore', 'create', big, '--name', f'big{i}'], env))
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
    wall, cpu = [r.wall for r in runs], [r.cpu for r in runs]
    report('far-create-big', 'wall: eight curls that put the same bytes / create', median(floor) / median(wall), 'x', 0.9, 'higher',
           f'{median(floor):.2f} s / {median(wall):.2f} s')
    report('far-create-big', 'cpu: create, seconds a GB', median(cpu) / (os.path.getsize(big) / 1e9), 's', note=f'curls {median(curl) / (os.path.getsize(big) / 1e9):.2f} s')
    report_peak('far-create-big', runs, 1)
    shutil.rmtree(root)
    shutil.rmtree(base)


# ---- reading through a mount ----

def far_tree(opt):
    """The small tree in a bucket, below DIR/bucket; made once."""
    root = os.path.join(opt.dir, 'bucket')
    if not os.path.exists(root + '.done'):
        base = fresh(os.path.join(opt.dir, 'far-make'))
        os.makedirs(root + '/b', exist_ok=True)
        with bucket(root) as b:
            env = far_env(b, base)
            Run([GRID, 'datastore', 'create', tree_small(opt), '--name', 'small'], env)
            Run([GRID, 'datastore', 'create', file_big(opt), '--name', 'big'], env)
        shutil.rmtree(base)
        open(root + '.done', 'w').close()
    return root


def tree_paths(tree):
    return [os.path.relpath(os.path.join(t, n), tree) for t, _, ns in sorted(os.walk(tree)) for n in sorted(ns)]


def packs_of(env, b, name):
    shown = json.loads(Run([GRID, 'datastore', 'show', name, '--json'], env).out)
    return [('b/grid/' + p['key'], p['length_bytes']) for p in shown['packs']]


def pieces(objects, size):
    return [(key, at, min(size, length - at)) for key, length in objects for at in range(0, length, size)]


@contextlib.contextmanager
def mounted(env, base, name, *flags):
    mnt = fresh(base + '/mnt')
    Run([GRID, 'datastore', 'mount', name, mnt, *flags], env)
    try:
        yield mnt
    finally:
        Run([GRID, 'datastore', 'unmount', mnt], env)


def read_all(directory, paths, *flags):
    """Seconds to open, read and close each of them."""
    out = subprocess.run([READ_FILES, *flags, directory], input='\n'.join(paths) + '\n', stdout=subprocess.PIPE, text=True, check=True).stdout
    return float(re.search(r'([\d.]+) us/file', out).group(1)) * len(paths) / 1e6


def far_read(opt):
    header('the 50,000 files from a bucket, nothing cached, one reader, 20 ms a request')
    tree, root = tree_small(opt), far_tree(opt)
    paths = tree_paths(tree)
    size = sum(os.path.getsize(os.path.join(tree, p)) for p in paths)
    base = fresh(os.path.join(opt.dir, 'far-read'))
    modes = ['fuse'] + (['native'] if os.geteuid() == 0 else [])
    times, fetched, floors = {}, {}, []
    for _ in range(opt.rounds):
        with bucket(root, delay_ms=20) as b:
            floors.append(raw(b, pieces(packs_of(far_env(b, base), b, 'small'), 8 << 20)))
        for mode in modes:
            for order, flags in ('directory', ['-o']), ('random', []):
                shutil.rmtree(base, ignore_errors=True)
                os.makedirs(base)
                b = Bucket(root, delay_ms=20)
                env = far_env(b, base)
                with mounted(env, base, 'small', '--mode', mode) as mnt:
                    times.setdefault((mode, order), []).append(read_all(mnt, paths, *flags))
                fetched.setdefault((mode, order), []).append(b.stop()['bytes_out'])
    floor = median([f['wall_s'] for f in floors])
    for mode in modes:
        for order, bar in ('directory', 0.8), ('random', 0.5):
            t = median(times[mode, order])
            report('far-read', f'{mode}, {order} order: raw client (8-MiB ranges, {floors[0]["at_once"]} at once) / reader', floor / t, 'x', bar, 'higher',
                   f'{size / t / 1e6:.0f} MB/s, raw {size / floor / 1e6:.0f} MB/s')
            report('far-read', f'{mode}, {order} order: bytes fetched / bytes read', median(fetched[mode, order]) / size, 'x', 1.1)
    shutil.rmtree(base)


def far_sequential(opt):
    header('a 4-GB file from a bucket, in order, 20 ms a request and 90 MB/s a connection')
    root = far_tree(opt)
    base = fresh(os.path.join(opt.dir, 'far-seq'))
    wall, floor = [], []
    for _ in range(max(1, opt.rounds // 2)):
        with bucket(root, delay_ms=20, rate_mb=90) as b:
            env = far_env(b, base)
            floor.append(raw(b, pieces(packs_of(env, b, 'big'), 8 << 20), [8, 16, 32])['wall_s'])
            shutil.rmtree(base, ignore_errors=True)
            os.makedirs(base)
            with mounted(env, base, 'big') as mnt:
                wall.append(Run(f'cat {mnt}/* >/dev/null', shell=True).wall)
    size = os.path.getsize(file_big(opt))
    report('far-sequential', 'raw client / cat', median(floor) / median(wall), 'x', 0.85, 'higher',
           f'{size / median(wall) / 1e6:.0f} MB/s, raw {size / median(floor) / 1e6:.0f} MB/s')
    shutil.rmtree(base)


def far_random(opt):
    header('random 4-KB reads in the 4-GB file, one at a time, 20 ms a request')
    root, big = far_tree(opt), file_big(opt)
    base = fresh(os.path.join(opt.dir, 'far-random'))
    rnd, times, count = random.Random(5), [], 200
    offsets = [rnd.randrange(os.path.getsize(big) // 4096) * 4096 for _ in range(count)]
    b = Bucket(root, delay_ms=20)
    env = far_env(b, base)
    with mounted(env, base, 'big') as mnt:
        with open(f'{mnt}/{os.path.basename(big)}', 'rb', buffering=0) as f:
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            for at in offsets:
                start = time.monotonic()
                os.pread(f.fileno(), 4096, at)
                times.append(time.monotonic() - start)
    got = b.stop()['bytes_out']
    report('far-random', 'median of a read', median(times) * 1000, 'ms', 22)
    report('far-random', 'bytes fetched / (2 leaves of 64 KiB a read)', got / (2 * 65536 * count), 'x', 1,
           note=f'{got / 1e6:.1f} MB for {count} reads, tables, trailers and index among them')
    shutil.rmtree(base)


def far_first_byte(opt):
    header('command -> mounted -> first ls -> first byte, nothing cached, 20 ms a request')
    modes = ['fuse'] + (['native'] if os.geteuid() == 0 else [])
    medians = {mode: [] for mode in modes}
    for files in [1000, 100_000] if opt.quick else [1000, 1_000_000, 10_000_000]:
        base, root = fresh(os.path.join(opt.dir, 'far-first')), fresh(os.path.join(opt.dir, 'far-first-bucket'))
        synthetic(opt, root + '/b', 'm', files, 1000, 1, 64)
        for mode in modes:
            times, chains = [], []
            for i in range(opt.rounds):  # in a place of its own: the last server may still be ending
                place = fresh(f'{base}/{mode}{i}')
                mnt, log = fresh(place + '/mnt'), place + '/log'
                with bucket(root, delay_ms=20, log=log) as b:
                    env = dict(far_env(b, place, 's3://b'), GRID_SERVER_IDLE='0')
                    times.append(Run(f'{GRID} datastore mount m {mnt} --mode {mode} && f=$(ls {mnt} | head -n 1) && g=$(ls {mnt}/$f | head -n 1) && '
                                     f'head -c 1 {mnt}/$f/$g >/dev/null', env, shell=True).wall)
                    chains.append(len(longest_chain(read_log(log))))
                    Run([GRID, 'datastore', 'unmount', mnt], env)
            medians[mode].append(median(times))
            report('far-first-byte', f'{mode}, {files:,} files: dependent round trips', min(chains), '', 6)
            report('far-first-byte', f'{mode}, {files:,} files', median(times) * 1000, 'ms', note=f'{median(times) * 1000 / 20:.1f} x 20 ms, connection set-up and all processes in it')
        shutil.rmtree(root)
        shutil.rmtree(base, ignore_errors=True)
    for mode in modes:
        report('far-first-byte', f'{mode}: largest difference', (max(medians[mode]) - min(medians[mode])) * 1000, 'ms', 50)


# ---- sources ----

def far_copy_small(opt):
    header('copy 5,000 small objects from a bucket, 20 ms a request')
    count, base, root = (500 if opt.quick else 5000), fresh(os.path.join(opt.dir, 'far-copy')), fresh(os.path.join(opt.dir, 'far-copy-bucket'))
    rnd, objects = random.Random(6), []
    for i in range(count):
        path = f'src/d{i % 50:02}/o{i:05}'
        os.makedirs(os.path.dirname(f'{root}/{path}'), exist_ok=True)
        with open(f'{root}/{path}', 'wb') as f:
            f.write(rnd.randbytes(rnd.randint(2000, 40000)))
        objects.append((path, os.path.getsize(f'{root}/{path}')))
    size, runs, floor, one = sum(n for _, n in objects), [], [], []
    ranges = [(p, 0, n) for p, n in objects]
    with bucket(root, delay_ms=20) as b:
        env = dict(far_env(b, base), GRID_STORE=f'file://{base}/store')
        for _ in range(opt.rounds):
            floor.append(raw(b, ranges))
            one.append(raw(b, ranges[:200], [1])['wall_s'] * count / 200)
            shutil.rmtree(base)
            os.makedirs(base)
            runs.append(Run([GRID, 'datastore', 'create', 's3://src/', '--name', 'copied'], env))
    wall, cpu = [r.wall for r in runs], [r.cpu for r in runs]
    report('far-copy-small', 'one after another / create', median(one) / median(wall), 'x', 20, 'higher', f'{median(wall):.2f} s, {count / median(wall):.0f} objects a second')
    report('far-copy-small', f'raw client ({floor[0]["at_once"]} at once) / create', median([f['wall_s'] for f in floor]) / median(wall), 'x', 0.8, 'higher',
           f'cpu {median(cpu) / (size / 1e9):.1f} s a GB, raw {median([f["cpu_s"] for f in floor]) / (size / 1e9):.1f}')
    report_peak('far-copy-small', runs, count)
    shutil.rmtree(root)
    shutil.rmtree(base)


def far_no_copy(opt):
    header('--no-copy of 100,000 objects, 20 ms a request')
    count, base, root = (10_000 if opt.quick else 100_000), fresh(os.path.join(opt.dir, 'far-link')), fresh(f'/dev/shm/grid-bench-{os.getpid()}')
    for i in range(count):
        if i % 1000 == 0:
            os.makedirs(f'{root}/src/d{i // 1000:03}')
        with open(f'{root}/src/d{i // 1000:03}/o{i:06}', 'wb') as f:
            f.write(b'x')
    pages = [(f'src?list-type=2&prefix=d{i:03}/', 0, 1) for i in range(count // 1000)]
    runs, floor = [], []
    with bucket(root, delay_ms=20) as b:
        env = dict(far_env(b, base), GRID_STORE=f'file://{base}/store')
        for _ in range(opt.rounds):
            floor.append(raw(b, pages)['wall_s'])
            shutil.rmtree(base)
            os.makedirs(base)
            runs.append(Run([GRID, 'datastore', 'create', 's3://src/', '--name', 'linked', '--no-copy'], env))
    wall, cpu = [r.wall for r in runs], [r.cpu for r in runs]
    report('far-no-copy', 'create / raw listing in parallel, nothing parsed', median(wall) / median(floor), 'x', 1.3,
           note=f'{median(wall):.2f} s / {median(floor):.2f} s, cpu {median(cpu):.2f} s')
    report_peak('far-no-copy', runs, count)
    shutil.rmtree(root)
    shutil.rmtree(base)


def archive_bytes(opt):
    """2 GB, half of it like text and half random, in files of 1 MB."""
    path = os.path.join(opt.dir, 'archive')
    if not os.path.exists(path + '.done'):
        shutil.rmtree(path, ignore_errors=True)
        rnd = random.Random(7)
        words = [''.join(rnd.choice('abcdefghijklmnopqrstuvwxyz') for _ in range(rnd.randint(2, 9))) for _ in range(4000)]
        for i in range(200 if opt.quick else 2000):
            os.makedirs(f'{path}/d{i // 100:02}', exist_ok=True)
            with open(f'{path}/d{i // 100:02}/f{i:04}', 'wb') as f:
                f.write(' '.join(rnd.choices(words, k=170_000))[:1_000_000].encode() if i % 2 else rnd.randbytes(1_000_000))
        subprocess.run(['tar', '-czf', path + '.tar.gz', '-C', path, '.'], check=True)
        subprocess.run([sys.executable, '-c', 'import shutil, sys; shutil.make_archive(sys.argv[1], "zip", sys.argv[1])', path], check=True)
        for i in range(2):  # for libdeflate: halves of the same bytes
            subprocess.run(f'tar -cf - -C {path} $(ls {path} | awk "NR % 2 == {i}") | gzip >{path}.{i}.gz', shell=True, check=True)
        open(path + '.done', 'w').close()
    return path


def far_archive(opt):
    header('create from archives by URL: 2 GB of text-like and random bytes')
    path = archive_bytes(opt)
    size = sum(os.path.getsize(os.path.join(t, n)) for t, _, ns in os.walk(path) for n in ns)
    base, root = fresh(os.path.join(opt.dir, 'far-archive')), fresh(os.path.join(opt.dir, 'far-archive-bucket'))
    os.makedirs(root + '/b')
    for suffix in '.tar.gz', '.zip':
        os.link(path + suffix, f'{root}/b/archive{suffix}')
    Run(f'cat {path}*.gz {path}.zip >/dev/null', shell=True)
    tar, zipped, igzip, deflate, runs = [], [], [], [], []
    with bucket(root) as b:
        env = dict(far_env(b, base), GRID_STORE=f'file://{base}/store')
        for _ in range(opt.rounds):
            igzip.append(Run(f'igzip -d -c {path}.tar.gz >/dev/null', shell=True).wall)
            if shutil.which('libdeflate-gunzip'):
                deflate.append(Run(f'libdeflate-gunzip -c {path}.0.gz >/dev/null & libdeflate-gunzip -c {path}.1.gz >/dev/null; wait', shell=True).wall)
            for times, suffix in (tar, '.tar.gz'), (zipped, '.zip'):
                shutil.rmtree(base)
                os.makedirs(base)
                runs.append(Run([GRID, 'datastore', 'create', f'{b.url}/b/archive{suffix}', '--name', 'a'], env))
                times.append(runs[-1].wall)
    report('far-archive', 'tar.gz: igzip -d / create', median(igzip) / median(tar), 'x', 0.8, 'higher', f'{size / median(tar) / 1e6:.0f} MB/s, igzip {size / median(igzip) / 1e6:.0f} MB/s')
    if deflate:
        report('far-archive', 'zip: libdeflate on both CPUs / create', median(deflate) / median(zipped), 'x', 0.8, 'higher',
               f'{size / median(zipped) / 1e6:.0f} MB/s, libdeflate {size / median(deflate) / 1e6:.0f} MB/s')
    else:
        print('  zip against libdeflate: libdeflate-tools is not installed')
    report('far-archive', 'cpu: create from .tar.gz, seconds a GB', median([r.cpu for r in runs[::2]]) / (size / 1e9), 's')
    report('far-archive', 'cpu: create from .zip, seconds a GB', median([r.cpu for r in runs[1::2]]) / (size / 1e9), 's')
    report_peak('far-archive', runs, 2000)
    shutil.rmtree(root)
    shutil.rmtree(base)


def gateway_requests(where):
    """Requests that the gateway has answered since it was started."""
    counters = Run(['ceph', '--admin-daemon', f'{where}/run/client.rgw.a.asok', 'perf', 'dump'], dict(os.environ, CEPH_CONF=f'{where}/ceph.conf')).out
    return json.loads(counters)['rgw']['req']


def ceph_create_small(opt):
    header('create from 5,000 files of 2-40 KB, store on Ceph; rclone copies them')
    if not shutil.which('rclone') or not shutil.which('radosgw'):
        print('  rclone or radosgw is not installed')
        return
    ceph = os.path.join(TOP, 'tests/lib/ceph.sh')
    base = fresh(os.path.join(opt.dir, 'ceph'))
    tree = os.path.join(base, 'tree')
    os.makedirs(tree)
    for i in range(1 if opt.quick else 10):
        os.symlink(os.path.join(tree_small(opt), f'd{i:03}'), f'{tree}/d{i:03}')
    Run(f'cp -rL {tree} {tree}.real', shell=True)
    tree += '.real'
    files = sum(len(ns) for _, _, ns in os.walk(tree))
    where = f'/dev/shm/grid-ceph-{os.getpid()}'
    started = subprocess.run([ceph, 'start', where], stdout=subprocess.PIPE, text=True, check=True).stdout
    env = dict(os.environ, **dict(line.removeprefix('export ').split('=', 1) for line in started.replace("'", '').split('\n') if '=' in line))
    try:
        env.update(AWS_ENDPOINT_URL=env['S3_TEST_ENDPOINT'], AWS_REGION=env.get('S3_TEST_REGION', 'default'), GRID_CONFIG_SYSTEM='/nonexistent',
                   XDG_CONFIG_HOME=base + '/config', RCLONE_CONFIG_C_TYPE='s3', RCLONE_CONFIG_C_PROVIDER='Ceph', RCLONE_CONFIG_C_ENV_AUTH='true',
                   RCLONE_CONFIG_C_ENDPOINT=env['S3_TEST_ENDPOINT'])
        env.pop('AWS_CA_BUNDLE', None)  # rclone's own transport refuses it
        Run(['rclone', 'mkdir', 'c:bench'], env)
        runs, again, rclone, requests = [], [], [], []
        one = fresh(base + '/one')
        open(one + '/file', 'w').close()
        for i in range(max(1, opt.rounds // 2)):
            before = gateway_requests(where)
            rclone.append(Run(['rclone', 'copy', '--transfers', '16', tree, f'c:bench/rclone{i}'], env).wall)
            between = gateway_requests(where)
            time.sleep(3)  # what the gateway still does for the copy is no cost of the next command
            runs.append(Run([GRID, 'datastore', 'create', tree, '--name', 'small'],
                            dict(env, GRID_STORE=f's3://bench/new{i}', GRID_CACHE=f'{base}/new{i}')))
            after = gateway_requests(where)
            known = dict(env, GRID_STORE=f's3://bench/known{i}', GRID_CACHE=f'{base}/known{i}')
            Run([GRID, 'datastore', 'create', one, '--name', 'one'], known)
            probed = gateway_requests(where)
            again.append(Run([GRID, 'datastore', 'create', tree, '--name', 'small'], known))
            requests.append((between - before, after - between, gateway_requests(where) - probed))
    finally:
        subprocess.run([ceph, 'stop', where])
    theirs, first, later = (median(column) for column in zip(*requests))
    copy = median(rclone)
    for what, ran, count in ('a new store, its probe among it', runs, first), ('a store that was probed', again, later):
        wall = median([r.wall for r in ran])
        report('ceph-create-small', f'rclone copy --transfers 16 / create: {what}', copy / wall, 'x', 8, 'higher', f'{copy:.1f} s / {wall:.1f} s for {files} files')
        report('ceph-create-small', f'requests of rclone / of create: {what}', theirs / count, 'x', 50, 'higher', f'{theirs:.0f} / {count:.0f}')
    report_peak('ceph-create-small', runs, files)
    shutil.rmtree(base)


SCENARIOS = dict(far_listing=far_listing, far_create_big=far_create_big, ceph_create_small=ceph_create_small, far_copy_small=far_copy_small,
                 far_no_copy=far_no_copy, far_archive=far_archive, far_read=far_read, far_sequential=far_sequential, far_random=far_random,
                 far_first_byte=far_first_byte)
