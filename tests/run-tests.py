#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the tests: programs that Meson built (unit, sim, fuzz replays), and executables in tests/cases/.

  tests/run-tests.py [--build DIR] [--soak] [--suite NAME]... [-j N] [PATTERN...]

A case is any executable file in tests/cases/<area>/: drop one in and it is run. It gets a private
directory as its working directory (removed if it passes), HOME and XDG_* inside it, GRID (the program),
TOP (the source tree), BUILD, and SOAK=1 with --soak. Exit code 0 passed, 77 skipped (the last line says
why), else failed. Lines of its header may say `timeout: SECONDS` (default 300) and `tier: soak` (run with
--soak only). What it leaves behind -- processes, mounts -- is cleaned up and counts as a failure. Its store in $GRID_STORE is
checked with `grid datastore fsck` when it has passed, unless its header says `store: damaged`.
The closing line is `N passed, N failed, N skipped`.
"""
import argparse, concurrent.futures, ctypes, fnmatch, json, os, re, shutil, signal, subprocess, sys, tempfile, time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PR_SET_CHILD_SUBREAPER = 36


class Result:
    def __init__(self, name, passed=0, failed=0, skipped=0, seconds=0.0, notes=(), log=''):
        self.name, self.passed, self.failed, self.skipped = name, passed, failed, skipped
        self.seconds, self.notes, self.log = seconds, list(notes), log


def read_header(path):
    """timeout and tier from the first 20 lines."""
    timeout, tier = 300, 'check'
    with open(path, 'rb') as f:
        for line in f.read(4096).decode('utf-8', 'replace').splitlines()[:20]:
            m = re.match(r'#\s*timeout:\s*(\d+)', line)
            timeout = int(m.group(1)) if m else timeout
            m = re.match(r'#\s*tier:\s*(\w+)', line)
            tier = m.group(1) if m else tier
    return timeout, tier


def descendants(root):
    """Processes below `root`, those that were left by their parents included (it is their reaper)."""
    parent = {}
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{pid}/stat') as f:
                fields = f.read().rsplit(')', 1)[1].split()
            if fields[0] != 'Z':
                parent[int(pid)] = int(fields[1])
        except OSError:
            pass
    found, todo = [], [root]
    while todo:
        above = todo.pop()
        below = [p for p, up in parent.items() if up == above]
        found += below
        todo += below
    return found


def mounts_below(directory):
    with open('/proc/self/mountinfo') as f:
        points = [line.split()[4].encode().decode('unicode_escape') for line in f]
    return [p for p in points if p == directory or p.startswith(directory + '/')]


def name_of(pid):
    try:
        with open(f'/proc/{pid}/cmdline', 'rb') as f:
            return f.read().replace(b'\0', b' ').decode('utf-8', 'replace').strip()[:120]
    except OSError:
        return '?'


def keeper():
    """In a process of its own (--keeper), which adopts all orphans below it: run a command, then sweep."""
    job = json.load(sys.stdin)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for number in (signal.SIGINT, signal.SIGQUIT):  # a background shell has them ignored, and tests send them
        signal.signal(number, signal.SIG_DFL)
    with open(job['log'], 'wb') as log:
        child = subprocess.Popen(job['argv'], env=job['env'], cwd=job['cwd'], stdin=subprocess.DEVNULL,
                                 stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        code = child.wait(job['timeout'])
    except subprocess.TimeoutExpired:
        code = 'timeout'
    # A server whose mount has just gone may need a moment to leave by itself.
    for _ in range(100 if code != 'timeout' else 0):
        if not descendants(os.getpid()):
            break
        time.sleep(0.05)
    left = [name_of(p) for p in descendants(os.getpid())] if code != 'timeout' else []
    for _ in range(50):
        alive = descendants(os.getpid())
        for pid in alive:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        if not alive:
            break
        time.sleep(0.02)
    json.dump([code, left], sys.stdout)


def run_guarded(argv, env, cwd, timeout, log_path):
    """-> (exit code or 'timeout', command lines of processes that were left behind)"""
    job = dict(argv=argv, env=env, cwd=cwd, timeout=timeout, log=log_path)
    p = subprocess.run([sys.executable, os.path.abspath(__file__), '--keeper'], input=json.dumps(job),
                       stdout=subprocess.PIPE, text=True)
    return json.loads(p.stdout) if p.returncode == 0 else ('keeper died', [])


def tail(path, lines=60):
    with open(path, 'rb') as f:
        return '\n'.join(f.read().decode('utf-8', 'replace').splitlines()[-lines:])


def leaves_damage(path):
    with open(path, 'rb') as f:
        return re.search(rb'^#\s*store: damaged', f.read(4096), re.M) is not None


def unsound(private, options):
    """What the checker of whole stores says of those that a case has left; [] if nothing."""
    said = []
    for store in private + '/store', private + '/data/grid/store':
        if os.path.exists(store + '/fmt'):
            env = dict(os.environ, GRID_STORE='file://' + store, HOME=private, GRID_CONFIG_SYSTEM='/nonexistent', XDG_CONFIG_HOME=private + '/no-config')
            p = subprocess.run([options.grid, 'datastore', 'fsck'], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
            if p.returncode:
                said.append(f'{os.path.relpath(store, private)}: {p.stdout[-500:]}')
    return said


def run_case(path, options):
    name = os.path.relpath(path, os.path.join(TOP, 'tests/cases'))
    timeout, _ = read_header(path)
    private = os.path.join(options.scratch, name.replace('/', '-'))
    os.makedirs(private)
    os.chmod(private, 0o755)
    env = dict(os.environ, GRID=options.grid, TOP=TOP, BUILD=options.build, HOME=private, LC_ALL='C.UTF-8',
               XDG_DATA_HOME=private + '/data', XDG_CACHE_HOME=private + '/cache', XDG_CONFIG_HOME=private + '/config',
               XDG_STATE_HOME=private + '/state', GRID_RUNTIME_DIR=private + '/runtime', TMPDIR=private,
               GRID_STORE='file://' + private + '/store', GRID_CACHE=private + '/cache/grid',
               GRID_CONFIG_SYSTEM=private + '/etc-config', GRID_SERVER_IDLE='0')
    env.pop('XDG_RUNTIME_DIR', None)
    if options.soak:
        env['SOAK'] = '1'
    log = private + '.log'
    start = time.monotonic()
    code, left = run_guarded([path], env, private, timeout * (6 if options.soak else 1), log)
    r = Result('cases/' + name, seconds=time.monotonic() - start)
    mounts = mounts_below(private)
    for point in reversed(mounts):
        subprocess.run(['umount', '-l', point], stderr=subprocess.DEVNULL)
    text = tail(log)
    broken = unsound(private, options) if code == 0 and not leaves_damage(path) else []
    if code == 77:
        r.skipped, r.notes = 1, [(text.splitlines() or ['no reason given'])[-1]]
        if not text:
            r.skipped, r.failed, r.notes = 0, 1, ['skipped without a reason']
    elif code == 0 and not left and not mounts and not broken:
        r.passed = 1
    else:
        r.failed = 1
        if code != 0:
            r.notes.append(f'exit code {code}')
        r.notes += [f'left a process: {p}' for p in left] + [f'left a mount: {m}' for m in mounts] + [f'left a store that is not sound: {b}' for b in broken]
        r.log = text
    if r.failed and options.keep:
        r.notes.append('kept: ' + private)
    else:
        shutil.rmtree(private, ignore_errors=True)
    return r


def count_tap(text):
    passed = failed = skipped = 0
    notes = []
    for line in text.splitlines():
        m = re.match(r'(not )?ok\b', line)
        if not m:
            continue
        if '# SKIP' in line or '# skip' in line:
            skipped += 1
            notes.append(line.split('#', 1)[1].strip())
        elif m.group(1):
            failed += 1
        else:
            passed += 1
    return passed, failed, skipped, notes


def run_program(test, options):
    """A test that Meson knows. Programs of cmocka speak TAP; others are one test each."""
    name = f"{test['suite'][0].split(':')[-1]}/{test['name']}"
    private = os.path.join(options.scratch, name.replace('/', '-'))
    os.makedirs(private)
    env = dict(os.environ, CMOCKA_MESSAGE_OUTPUT='TAP', TOP=TOP, TMPDIR=private, **test['env'])
    if options.soak:
        env['SOAK'] = '1'
    log = private + '.log'
    start = time.monotonic()
    code, left = run_guarded(test['cmd'], env, private, test['timeout'] * (6 if options.soak else 1), log)
    with open(log, 'rb') as f:
        text = f.read().decode('utf-8', 'replace')
    passed, failed, skipped, notes = count_tap(text)
    r = Result(name, passed, failed, skipped, time.monotonic() - start, notes)
    if passed + failed + skipped == 0:
        if code == 77:
            r.skipped, r.notes = 1, [(text.strip().splitlines() or ['no reason given'])[-1]]
        elif code == 0:
            r.passed = 1
    if (code not in (0, 77) and r.failed == 0) or left:
        r.failed += 1
        r.notes += [f'exit code {code}'] + [f'left a process: {p}' for p in left]
    if r.failed:
        r.log = tail(log)
    for point in reversed(mounts_below(private)):
        subprocess.run(['umount', '-l', point], stderr=subprocess.DEVNULL)
    shutil.rmtree(private, ignore_errors=True)
    return r


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--build', default=os.path.join(TOP, 'build'))
    ap.add_argument('--soak', action='store_true')
    ap.add_argument('--suite', action='append', default=[])
    ap.add_argument('--keep', action='store_true', help='keep the directories of cases that fail')
    ap.add_argument('-j', type=int, default=os.cpu_count() or 1)
    ap.add_argument('patterns', nargs='*')
    options = ap.parse_args()
    options.build = os.path.abspath(options.build)
    options.grid = os.path.join(options.build, 'src/cli/grid')
    options.scratch = tempfile.mkdtemp(prefix='grid-tests-')
    os.chmod(options.scratch, 0o755)

    def wanted(name):
        return not options.patterns or any(fnmatch.fnmatch(name, f'*{p}*') for p in options.patterns)

    jobs = []
    tests = json.loads(subprocess.check_output(['meson', 'introspect', '--tests', options.build]))
    for t in tests:
        suite = t['suite'][0].split(':')[-1]
        if wanted(f"{suite}/{t['name']}") and (not options.suite or suite in options.suite):
            jobs.append((run_program, t))
    for area, _, files in sorted(os.walk(os.path.join(TOP, 'tests/cases'))):
        for f in sorted(files):
            path = os.path.join(area, f)
            if not os.access(path, os.X_OK) or not wanted('cases/' + os.path.relpath(path, os.path.join(TOP, 'tests/cases'))):
                continue
            if options.suite and 'cases' not in options.suite:
                continue
            if read_header(path)[1] == 'soak' and not options.soak:
                continue
            jobs.append((run_case, path))

    results = []
    with concurrent.futures.ThreadPoolExecutor(options.j) as pool:
        for done in concurrent.futures.as_completed([pool.submit(fn, arg, options) for fn, arg in jobs]):
            r = done.result()
            results.append(r)
            word = 'FAILED' if r.failed else 'skipped' if r.skipped and not r.passed else 'ok'
            counts = f'{r.passed} passed' + (f', {r.failed} failed' if r.failed else '') + (f', {r.skipped} skipped' if r.skipped else '')
            print(f'{word:8}{r.name:44} {counts:32} {r.seconds:6.1f} s', flush=True)
            for note in r.notes:
                print(f'        {note}')
            if r.log:
                print('        | ' + r.log.replace('\n', '\n        | '), flush=True)
    if not options.keep:
        shutil.rmtree(options.scratch, ignore_errors=True)
    passed, failed, skipped = (sum(getattr(r, k) for r in results) for k in ('passed', 'failed', 'skipped'))
    print(f'{passed} passed, {failed} failed, {skipped} skipped')
    sys.exit(1 if failed or not passed else 0)


keeper() if sys.argv[1:] == ['--keeper'] else main()
