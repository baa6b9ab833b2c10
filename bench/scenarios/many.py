# SPDX-License-Identifier: Apache-2.0
"""Many jobs at once on one machine: a hundred runs of one version against one run, and two hundred mounts of it."""
import os, shutil, subprocess, time

from .common import GRID, Run, fresh, header, median, report, synthetic

RUNS, MOUNTS = 100, 200


def started(env, count):
    """Seconds until `count` runs, begun at once, have all read their first byte."""
    command = [GRID, 'run', '--datastore_name', 'm', '--', 'sh', '-c', 'head -c 1 "$(find /datastores/m -type f | head -n 1)" >/dev/null && date +%s.%N']
    begin = time.time()
    runs = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    return max(float(p.communicate()[0]) for p in runs) - begin


def jobs(opt):
    header(f'{RUNS} runs of one version at once, and {MOUNTS} mounts')
    if os.geteuid() != 0:
        print('  servers are shared between the jobs of root')
        return
    base = fresh(os.path.join(opt.dir, 'many'))
    synthetic(opt, base + '/store', 'm', 1000, 100, 1, 1000)
    env = dict(os.environ, GRID_STORE=f'file://{base}/store', GRID_CACHE=base + '/cache', GRID_RUNTIME_DIR=base + '/run', GRID_CONFIG_SYSTEM='/nonexistent',
               XDG_CONFIG_HOME=base + '/config', GRID_SERVER_IDLE='0')
    one, many, mounts = [], [], []
    for i in range(opt.rounds):
        one.append(started(env, 1))
        many.append(started(env, RUNS))
        places = [fresh(f'{base}/mnt{i}/{k}') for k in range(MOUNTS)]
        begin = time.monotonic()
        for p in [subprocess.Popen([GRID, 'datastore', 'mount', 'm', place], env=env) for place in places]:
            if p.wait():
                raise SystemExit('a mount failed')
        mounts.append(time.monotonic() - begin)
        for place in places:
            Run([GRID, 'datastore', 'unmount', place], env)
    report('many-jobs', f'{RUNS} runs: the last one starts after one alone', median(many) - median(one), 's', 2, note=f'{median(many):.2f} s, one {median(one) * 1000:.0f} ms')
    report('many-jobs', f'{MOUNTS} mounts at once', median(mounts), 's', 2)
    shutil.rmtree(base, ignore_errors=True)


SCENARIOS = dict(many_jobs=jobs)
