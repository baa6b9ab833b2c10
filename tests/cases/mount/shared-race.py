#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 400
"""Starters, joiners and leavers race with each other and with the killing of servers, by seed: SEED=n repeats one.
Servers end with their last job here, so every second job meets one on its way out. Every read is compared; when
all is over nothing is left. Phases: nobody is killed; servers are; their supervisors are; both at once, when a job
may fail, but never read wrong bytes and never hang."""
import json, os, random, re, signal, subprocess, sys, threading, time

sys.path.insert(0, os.environ['TOP'] + '/tests/lib')
from gridtest import fail, grid, skip

if os.environ.get('SOAK') != '1':
    skip('in the soak only: what it meets depends on the seed, and shared.py has each of its faults once')

GRID, RUNTIME = os.environ['GRID'], os.environ['GRID_RUNTIME_DIR']
SEED = int(os.environ.get('SEED', random.randrange(1 << 30)))
SECONDS = 30 if os.environ.get('SOAK') else 4
WORKERS, HANG_S = 6, 100
PHASES = [('nobody', None), ('servers', 'grid-serve'), ('supervisors', 'grid-supervise'), ('both', 'grid-')]
failures, done, killed = [], {}, {}
end = threading.Event()


def ours(comm):
    """Server processes of this test, by the directory in their environment: pid, is it a supervisor."""
    found = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{pid}/comm') as f:
                name = f.read().strip()
            with open(f'/proc/{pid}/environ', 'rb') as f:
                mine = f'GRID_RUNTIME_DIR={RUNTIME}'.encode() in f.read().split(b'\0')
            with open(f'/proc/{pid}/stat') as f:
                state = f.read().rsplit(')', 1)[1].split()[0]
        except OSError:
            continue
        if mine and name.startswith(comm) and state not in 'ZX':
            found.append(int(pid))
    return found


def call(phase, what, *argv, may_fail=False):
    """True if it did what it should."""
    try:
        p = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=HANG_S)
    except subprocess.TimeoutExpired:
        failures.append(f'{phase}: {what} hangs')
        end.set()
        return False
    if 'differ' in p.stdout + p.stderr:
        failures.append(f'{phase}: {what} read wrong bytes: {p.stdout}{p.stderr}')
    elif p.returncode and not may_fail:
        failures.append(f'{phase}: {what}: {p.returncode}: {p.stdout}{p.stderr}')
    else:
        done[phase] = done.get(phase, 0) + (p.returncode == 0)
    return p.returncode == 0


def worker(number, phase, stop):
    rng = random.Random(f'{SEED} {phase} {number}')
    place, disaster = os.path.abspath(f'at{number}'), phase == 'both'
    while time.monotonic() < stop and not end.is_set() and len(failures) < 5:
        dice = rng.random()
        if dice < 0.5:
            call(phase, 'run', GRID, 'run', '--datastore_name', 't', '--', 'sh', '-c',
                 f'cmp tree/big /datastores/t/big && sleep {rng.random() * 0.1:.3f} && cmp tree/small /datastores/t/small',
                 may_fail=disaster)
        elif dice < 0.8:
            if call(phase, 'mount', GRID, 'datastore', 'mount', 't', place, may_fail=disaster):
                call(phase, 'cmp', 'cmp', 'tree/big', place + '/big', may_fail=disaster)
                call(phase, 'unmount', GRID, 'datastore', 'unmount', '--lazy', place, may_fail=disaster)
            elif disaster:
                subprocess.run(['umount', '-l', place], stderr=subprocess.DEVNULL)
        else:
            p = subprocess.Popen([GRID, 'run', '--datastore_name', 't', '--', 'sleep', '5'], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL, start_new_session=True)
            time.sleep(rng.random() * 0.1)
            os.killpg(p.pid, signal.SIGKILL)
            p.wait()
        time.sleep(rng.random() * 0.03)


def killer(phase, comm, stop):
    rng = random.Random(f'{SEED} {phase}')
    while comm and time.monotonic() < stop and not end.is_set():
        time.sleep(0.05 + rng.random() * 0.3)
        victims = ours(comm)
        if victims and phase != 'both':
            victims = [rng.choice(victims)]
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
                killed[phase] = killed.get(phase, 0) + 1
            except ProcessLookupError:
                pass


if os.geteuid():
    skip('needs root: an ordinary user has servers of his own')
os.mkdir('tree')
with open('tree/big', 'wb') as f:
    f.write(random.Random(SEED).randbytes(1 << 20))
with open('tree/small', 'w') as f:
    f.write('hello\n')
for i in range(WORKERS):
    os.mkdir(f'at{i}')
grid('datastore', 'create', 'tree', '--name', 't')
probe = grid('run', '--datastore_name', 't', '--', 'true', check=False)
if probe.returncode:
    skip(f'datastores cannot be attached here: {probe.stderr.strip()}')
if not os.path.exists(RUNTIME + '/servers'):
    skip('servers are not shared here')
print(f'SEED={SEED}', flush=True)
for phase, comm in PHASES:
    stop = time.monotonic() + SECONDS
    threads = [threading.Thread(target=worker, args=(i, phase, stop)) for i in range(WORKERS)]
    threads.append(threading.Thread(target=killer, args=(phase, comm, stop)))
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if failures:
        fail('\n'.join(failures))
    print(f'{phase}: {done.get(phase, 0)} done, {killed.get(phase, 0)} killed', flush=True)
    if not done.get(phase) or (comm and not killed.get(phase)):
        fail(f'{phase}: nothing was done, or nobody was killed')
    limit = time.monotonic() + HANG_S
    while True:
        rows = json.loads(grid('datastore', 'mounts', '--json').stdout)
        left = [f for f in os.listdir(RUNTIME + '/mounts')] + [f for f in os.listdir(RUNTIME + '/servers') if f != 'lock']
        with open('/proc/self/mountinfo') as f:
            seen = re.findall(re.escape(os.getcwd()) + r'/at\d', f.read())
        if not rows and not left and not seen and not ours('grid-'):
            break
        if time.monotonic() > limit:
            fail(f'{phase}: left are {rows} {left} {seen} {ours("grid-")}')
        time.sleep(0.1)
grid('datastore', 'delete', '--name', 't', '--version', '1', '--yes')
grid('datastore', 'fsck')
