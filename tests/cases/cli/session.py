#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# timeout: 120
"""Sessions and runs on a terminal and without one: listed, entered, ended by name with all that is in them; job
control, window size and signals of a terminal; what outlives its wrapper keeps its data. As root, and as an
ordinary user."""
import fcntl, json, os, pty, re, select, shutil, signal, struct, subprocess, sys, termios, time
sys.path.insert(0, os.environ['TOP'] + '/tests/lib')
from gridtest import GRID, fail, grid, skip


class Terminal:
    """A program on a terminal of its own."""
    def __init__(self, *argv, env=None, size=(24, 80)):
        self.seen = ''
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvpe(argv[0], argv, dict(os.environ, **(env or {})))
        self.resize(*size)

    def resize(self, rows, columns):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack('HHHH', rows, columns, 0, 0))

    def type(self, text):
        os.write(self.fd, text.encode())

    def expect(self, pattern, seconds=15):
        """Until the pattern was printed; what was before it is forgotten. -> the match"""
        end = time.monotonic() + seconds
        while True:
            m = re.search(pattern, self.seen)
            if m:
                self.seen = self.seen[m.end():]
                return m
            if time.monotonic() > end or not select.select([self.fd], [], [], max(0, end - time.monotonic()))[0]:
                fail(f'not seen on the terminal: {pattern!r}, but {self.seen!r}')
            try:
                self.seen += os.read(self.fd, 4096).decode('utf-8', 'replace')
            except OSError:
                fail(f'the program ended before {pattern!r}: {self.seen!r}')

    def settle(self):
        """Until nothing more is printed; that is forgotten."""
        while select.select([self.fd], [], [], 0.7)[0]:
            os.read(self.fd, 4096)
        self.seen = ''

    def end(self):
        """-> exit code"""
        try:
            while True:
                if not select.select([self.fd], [], [], 20)[0]:
                    os.kill(self.pid, signal.SIGKILL)
                    fail(f'the program does not end: {self.seen!r}')
                self.seen += os.read(self.fd, 4096).decode('utf-8', 'replace')
        except OSError:
            pass  # its terminal is closed: it has ended
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def eventually(what, test, seconds=15):
    end = time.monotonic() + seconds
    while not test():
        if time.monotonic() > end:
            fail('this does not come: ' + what)
        time.sleep(0.05)


def alive(pid):
    try:
        with open(f'/proc/{pid}/stat') as f:
            return f.read().rsplit(')', 1)[1].split()[0] not in 'ZX'
    except OSError:
        return False


def says(code, pattern, *args):
    p = grid(*args, check=False, stdin=subprocess.DEVNULL)
    if p.returncode != code or not re.search(pattern, p.stderr):
        fail(f'grid {" ".join(args)}: {p.returncode}, {p.stderr!r}, not {code}, {pattern!r}')
    return p.stdout


def in_background():
    quiet = dict(stdin=subprocess.DEVNULL)
    says(0, 'no sessions', 'session')
    if grid('session', 'create', '--datastore_name', 't', '--name', 's1', **quiet).stdout != 's1\n':
        fail('create does not print the name')
    grid('session', 'create', '--datastore_name', 't:1', '--datastore_name', 't', '--datastore_mount_dir', os.getcwd() + '/here',
         '--name', 's2', **quiet)
    rows = json.loads(grid('session', 'list', '--json').stdout)
    if sorted((r['session'], r['name'], r['version'], r['mountpoint']) for r in rows) != [
            ('s1', 't', 1, '/datastores/t'), ('s2', 't', 1, '/datastores/t'), ('s2', 't', 1, os.getcwd() + '/here')]:
        fail(f'the list: {rows}')
    if not re.search(r'^s1 +t +1 +local +/datastores/t +20', grid('session').stdout, re.M):
        fail('the table')
    says(0, 'no runs', 'run')
    says(1, "there is a session 's1' already", 'session', 'create', '--datastore_name', 't', '--name', 's1')
    says(2, 'name is made of', 'session', 'create', '--datastore_name', 't', '--name', '../s')
    says(2, 'datastore is missing', 'session', 'create')
    says(1, "no datastore is named 'u'", 'session', 'create', '--datastore_name', 'u', '--name', 's3')
    says(1, "there is no session 's3'", 'session', 'enter', 's3', 'true')
    says(1, "there is no session 's3'", 'session', 'delete', 's3')
    says(2, 'argument is missing', 'session', 'enter')
    says(1, "version 1 of 't' is in use: .*session s[12] on ", 'datastore', 'delete', '--name', 't', '--version', '1', '--yes')

    p = grid('session', 'enter', 's2', '--', 'sh', '-c', 'cat here/hello /datastores/t/hello; id -u; pwd; exit 7', check=False)
    if p.returncode != 7 or p.stdout.split() != ['hello', 'hello', str(os.geteuid()), os.getcwd()]:
        fail(f'enter: {p}')
    if grid('session', 'enter', 's1', 'no-such-program', check=False).returncode != 127:
        fail('a missing command in a session')
    # Whatever is in it ends with it, and nothing else does.
    script = 'trap "" TERM HUP; (trap "" TERM HUP; setsid sh -c "trap \\"\\" TERM HUP; echo up >deaf; sleep 600") & sleep 600'
    deaf = subprocess.Popen([GRID, 'session', 'enter', 's1', '--', 'sh', '-c', script])
    eventually('the deaf process', lambda: os.path.exists('deaf'))
    grid('session', 'delete', 's1')
    if deaf.wait() != -signal.SIGKILL:
        fail(f'the deaf process ended by {deaf.returncode}')
    if [r['session'] for r in json.loads(grid('session', '--json').stdout)] != ['s2', 's2']:
        fail('another session has ended too')
    os.unlink('deaf')
    # A session's end by its own hand.
    p = grid('session', 'enter', 's2', '--', GRID, 'session', 'delete', 's2', check=False)
    eventually('the end of s2', lambda: json.loads(grid('session', '--json').stdout) == [])
    says(1, "there is no session 's2'", 'session', 'delete', 's2')


def on_a_terminal():
    t = Terminal(GRID, 'session', 'create', '--datastore_name', 't', '--name', 'tty', env={'SHELL': '/bin/bash', 'PS1': 'ready> ', 'HOME': os.getcwd()})
    t.type('PS1="here""> "\n')
    t.expect('here> ')
    t.type('cat /datastores/t/hello; [ -t 0 ] && echo a terminal; stty size\n')
    t.expect('hello\r\na terminal\r\n24 80')
    t.resize(30, 100)
    t.type('stty size\n')
    t.expect('30 100')
    t.type('sleep 600\n')
    t.settle()
    t.type('\x1a')
    t.expect('Stopped')
    t.settle()
    t.type('kill -9 %1; while [ -n "$(jobs -ps)" ]; do sleep 0.1; done; echo go""ne\n')
    t.expect('gone')
    # Entered from elsewhere, and kept by who entered.
    inside = subprocess.Popen([GRID, 'session', 'enter', 'tty', '--', 'sh', '-c', 'echo up; read x; cat /datastores/t/hello'],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if inside.stdout.readline() != 'up\n':
        fail('enter from elsewhere')
    t.type('exit 9\n')
    if t.end() != 9:
        fail('the exit code of the shell')
    if [r['session'] for r in json.loads(grid('session', '--json').stdout)] != ['tty']:
        fail('the session ended before its last process')
    if inside.communicate('\n')[0] != 'hello\n':
        fail('who entered lost the data')
    eventually('the end of the session', lambda: json.loads(grid('session', '--json').stdout) == [])


def runs_on_a_terminal():
    t = Terminal('/bin/bash', '--norc', '--noprofile', '-i', env={'PS1': 'x> '})
    t.type('PS1="outer""> "\n')
    t.expect('outer> ')
    t.type(f'{GRID} run --datastore_name t -- sh -c \'echo u""p; while :; do sleep 0.1; done\'\n')
    t.expect('up\r')
    t.type('\x1a')
    t.expect('Stopped')
    t.type('fg\n')
    t.expect('sh -c')
    t.settle()
    t.type('\x03')
    t.settle()
    t.type('echo code $?\n')
    t.expect('code 130')
    # A command that stops itself: the shell gets the terminal back.
    t.type(f'{GRID} run --datastore_name t -- sh -c \'kill -STOP $$; cat /datastores/t/hello\'\n')
    t.expect('Stopped')
    t.type('fg\n')
    t.expect(r'hello\r\n')
    t.type('exit\n')
    t.end()


def outlives_its_wrapper():
    script = 'setsid sh -c "while [ ! -e down ]; do cat /datastores/t/hello >>seen || echo bad >bad; sleep 0.05; done" & exec sleep 600'
    p = subprocess.Popen([GRID, 'run', '--datastore_name', 't', '--name', 'r1', '--', 'sh', '-c', script])
    eventually('what is left', lambda: os.path.exists('seen'))
    command = int(open(f'/proc/{p.pid}/task/{p.pid}/children').read().split()[0])
    p.kill()
    p.wait()
    os.kill(command, signal.SIGKILL)
    os.unlink('seen')
    eventually('reads behind the wrapper', lambda: os.path.exists('seen') and os.path.getsize('seen') > 0)
    if [r['run'] for r in json.loads(grid('run', '--json').stdout)] != ['r1']:
        fail('a run with a process left is not listed')
    open('down', 'w').close()
    eventually('the end of the run', lambda: json.loads(grid('run', '--json').stdout) == [])
    if os.path.exists('bad'):
        fail('what was left lost its data')


def all_parts():
    os.makedirs('tree')
    os.makedirs('here')
    with open('tree/hello', 'w') as f:
        f.write('hello\n')
    grid('datastore', 'create', 'tree', '--name', 't')
    p = grid('run', '--datastore_name', 't', 'true', check=False)
    if p.returncode:
        skip('datastores cannot be attached here: ' + p.stderr.strip())
    in_background()
    print("on a terminal", flush=True)
    on_a_terminal()
    print("runs", flush=True)
    runs_on_a_terminal()
    print("outlives", flush=True)
    outlives_its_wrapper()


def as_a_user():
    """In a mount namespace with a /dev/fuse that is open to users, as udev makes it."""
    os.makedirs('user')
    os.chown('user', 65534, 65534)
    shutil.copy(GRID, 'user/grid')
    shutil.copy(__file__, 'user/session.py')
    env = dict(PATH='/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin', HOME=os.path.abspath('user'), TOP=os.environ['TOP'], GRID=os.path.abspath('user/grid'),
               GRID_RUNTIME_DIR=os.path.abspath('user/run'), LC_ALL='C.UTF-8', GRID_CASE_USER='1')
    script = '''mkdir device && mount -t tmpfs -o mode=0755 dev device && mknod device/fuse c 10 229 && chmod 0666 device/fuse &&
        mount --bind device/fuse /dev/fuse && umount -l device && cd user &&
        exec setpriv --reuid=65534 --regid=65534 --clear-groups python3 session.py'''
    p = subprocess.run(['unshare', '--mount', '--propagation', 'private', 'sh', '-euc', script], env=env, stdout=subprocess.PIPE, text=True)
    if p.returncode == 77:
        print('as a user: ' + p.stdout.strip())
    elif p.returncode:
        fail('as a user')


if not os.path.exists('/dev/fuse'):
    skip('there is no /dev/fuse')
all_parts()
if os.geteuid() == 0:
    as_a_user()
