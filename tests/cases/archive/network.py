#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 300
"""What a server and a line can do to a download: an archive that changes, ranges that vanish, cut connections, pages instead
of archives, redirects with and without a password. Nothing of it is ever half visible, and the same command goes on."""
import os, signal, sys
sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests/lib'))
from archives import *

rnd = random.Random(9)
files = [(f'd{i % 7}/f{i}', rnd.randbytes(300000), {}) for i in range(130)]
server = Server()
server.put('a.tar', tar(files))
server.put('a.zip', zipped([{'name': n.encode(), 'data': d, 'method': 0} for n, d, _ in files]))
server.put('small.tar', tar(files[:3]))
server.put('empty.tar', b'')
server.put('noise.tar', rnd.randbytes(100000))
server.put('inside.tar.gz', subprocess.run(['gzip'], input=b'no tar at all\n' * 1000, stdout=subprocess.PIPE, check=True).stdout)
server.put('seven.zip', b'7z\xbc\xaf\x27\x1c' + bytes(100))

# It changes in the middle.
for how in 'change/4', 'lie/4':
    refused(server.url(how + '/a.tar'), 'changed while it was read')
    if len(server.requests(how)) < 4:
        fail(f'{how}: it had no time to change')
refused(server.url('ignore/4/a.tar'), 'ranges no longer')
refused(server.url('change/3/a.zip'), 'changed while it was read')
refused(server.url('plaincut/9000000/a.tar'), 'cut off', 'no ranges')

# What is no archive.
numbers = len(made('refused'))
refused(server.url('html/a.tar.gz'), 'web page')
refused(server.url('range/empty.tar'), 'is empty')
refused(server.url('plain/empty.tar'), 'is empty')
refused(server.url('range/noise.tar'), 'is no archive')
refused(server.url('range/inside.tar.gz'), 'no whole tar archive')
refused(server.url('range/seven.zip'), 'of a kind that is not unpacked')
refused(server.url('range/nothing.tar'), 'is not there', '404')
refused(server.url('status/403/a.tar'), 'may not be read', '403')
refused(server.url('status/418/a.tar'), '418')
refused('http://127.0.0.1:1/a.tar', 'cannot be read')
refused('http://no-such-host.invalid/a.tar', 'cannot be read')
if len(made('refused')) != numbers:
    fail(f'what was refused at once used up a number: {made("refused")}')

# Redirects: followed, but not everywhere, and a password stays where it belongs.
server.requests()
create(server.url('to/' + server.url('range/small.tar', host='localhost'), user='user:secret%20word@'))
asked = server.requests()
if asked[0]['authorization'] is None or any(r['authorization'] for r in asked if r['host'].startswith('localhost')):
    fail(f'the password went astray: {asked}')
if len([r for r in asked if r['host'].startswith('localhost')]) < 2:
    fail('the redirect was not followed')
create(server.url('to//auth/small.tar', user='user:secret%20word@'))
refused(server.url('auth/small.tar', user='user:wrong@'), 'may not be read', '401')
refused(server.url('to/' + server.url('auth/small.tar', host='localhost'), user='user:secret%20word@'), '401')
for where in 'file:///etc/passwd.tar', 'ftp://h/x.tar', 'gopher://h/x.tar':
    refused(server.url('to/' + where), 'redirects to something')
loop = server.url('range/small.tar')
for i in range(12):
    loop = server.url('to/' + loop)
refused(loop, 'redirects more than')

# Cut connections in every request: the download goes on where it was.
create(server.url('cut/1000000/a.tar'), 'cut')
if len(server.requests('/cut/')) < 30:
    fail('nothing was cut')
exported('cut')
for name, data, _ in files:
    with open('out/' + name, 'rb') as f:
        if f.read() != data:
            fail(f'{name} is not what it was')

# Interrupted by the user, and killed: the same command continues, and stores nothing twice.
for number, signal_ in enumerate((signal.SIGINT, signal.SIGKILL)):
    name = f'stopped{number}'
    p = subprocess.Popen([GRID, 'datastore', 'create', server.url('slow/a.tar'), '--name', name], stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 60
    while time.time() < deadline and not made(name):
        time.sleep(0.1)
    time.sleep(1)
    p.send_signal(signal_)
    text = p.communicate(timeout=60)[1]
    if p.returncode == 0:
        fail(f'{signal_}: it was through before it was stopped')
    if signal_ == signal.SIGINT and 'interrupted; nothing of this upload is visible' not in text:
        fail(text)
    if [r['status'] for r in versions(name).values()] == ['succeeded']:
        fail('an interrupted version is visible')
    p = grid('datastore', 'resume', '--name', name)
    rows = versions(name)
    if [(k[1], r['status']) for k, r in rows.items()] != [(1, 'succeeded')] or 'continuing' not in p.stderr:
        fail(f'{rows}\n{p.stderr}')
    grid('datastore', 'verify', name)
server.stop()
