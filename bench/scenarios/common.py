# SPDX-License-Identifier: Apache-2.0
"""What the scenarios share: timed commands, figures, the trees that are read."""
import json, os, random, shutil, statistics, subprocess, sys, tempfile, time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
GRID = os.environ.get('GRID', os.path.join(TOP, 'build/src/cli/grid'))
BENCH = os.path.join(TOP, 'build/bench')
READ_FILES = os.path.join(BENCH, 'read-files')
SYNTHETIC = os.path.join(BENCH, 'publish-synthetic')
results = []


class Run:
    """One command, timed as a whole: wall, cpu, peak memory (KiB) of the largest process."""
    def __init__(self, command, env=None, shell=False):
        with tempfile.TemporaryFile('w+') as out, tempfile.TemporaryFile('w+') as err:
            start = time.monotonic()
            p = subprocess.Popen(command, shell=shell, env=env, stdout=out, stderr=err)
            _, status, used = os.wait4(p.pid, 0)
            self.wall = time.monotonic() - start
            p.returncode = os.waitstatus_to_exitcode(status)
            self.cpu = used.ru_utime + used.ru_stime
            self.peak = used.ru_maxrss
            out.seek(0)
            self.out = out.read()
            if p.returncode:
                err.seek(0)
                sys.exit(f'{command}: exit {p.returncode}\n{err.read()[-2000:]}')


def median(values):
    return statistics.median(values)


def report(scenario, what, value, unit, bar=None, better='lower', note=''):
    ok = None if bar is None else (value <= bar if better == 'lower' else value >= bar)
    results.append(dict(scenario=scenario, what=what, value=round(value, 4), unit=unit, bar=bar, met=ok, note=note))
    mark = '' if ok is None else ('  ok' if ok else '  FALLS SHORT')
    limit = '' if bar is None else f'  (bar {"<=" if better == "lower" else ">="} {bar:g})'
    print(f'  {what:58} {value:12.3f} {unit}{limit}{mark}{"  " + note if note else ""}', flush=True)


def report_peak(scenario, runs, files):
    """The largest process of any of the runs, against what a create may take."""
    peak = max(r.peak for r in runs) / 1024
    report(scenario, f'peak memory of create / (512 MiB + 64 B a file)', peak / (512 + 64 * files / (1 << 20)), 'x', 1, note=f'{peak:.0f} MiB')


def header(text):
    print(f'\n{text}', flush=True)


def fresh(path):
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    return path


def env_for(opt, tag):
    base = os.path.join(opt.dir, 'grid-' + tag)
    return dict(os.environ, GRID_STORE='file://' + base + '/store', GRID_CACHE=base + '/cache', GRID_RUNTIME_DIR=base + '/run',
                GRID_CONFIG_SYSTEM='/nonexistent', XDG_CONFIG_HOME=base + '/config'), base


def tree_small(opt):
    """50,000 files of 2 to 40 KB in 100 directories; random bytes, the same at every run."""
    path = os.path.join(opt.dir, 'tree')
    count = 5000 if opt.quick else 50000
    if not os.path.exists(path + '.done'):
        rnd = random.Random(1)
        for i in range(count):
            d = os.path.join(path, f'd{i // (count // 100):03}')
            if i % (count // 100) == 0:
                os.makedirs(d, exist_ok=True)
            with open(os.path.join(d, f'image{i:06}.jpg'), 'wb') as f:
                f.write(rnd.randbytes(rnd.randint(2000, 40000)))
        open(path + '.done', 'w').close()
        subprocess.run(['sync'])
        time.sleep(2)  # behind the racy second
    return path


def file_big(opt):
    path = os.path.join(opt.dir, 'big')
    size = (1 << 29) if opt.quick else 4 << 30
    if not os.path.exists(path) or os.path.getsize(path) != size:
        rnd = random.Random(2)
        with open(path, 'wb') as f:
            for _ in range(size >> 20):
                f.write(rnd.randbytes(1 << 20))
        subprocess.run(['sync'])
    return path


def warm(path):
    subprocess.run(f'tar -cf - {path} | cat >/dev/null', shell=True, stderr=subprocess.DEVNULL)


def settle():
    subprocess.run(['sync'])
    time.sleep(1)


def synthetic(opt, store, name, *args, cache=None):
    env = dict(os.environ)
    if cache:
        env['GRID_CACHE'] = cache
    return json.loads(Run([SYNTHETIC, 'file://' + store, name, *map(str, args)], env).out)
