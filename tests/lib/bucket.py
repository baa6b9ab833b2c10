# SPDX-License-Identifier: Apache-2.0
"""A bucket for cases that need a store which is not on a local disk: bench/bucket on a directory."""
import json, os, subprocess

from gridtest import fail, skip


class Bucket:
    """with Bucket(root) as b: b.env leads grid to a store in it. b.stop() gives what it has counted."""
    def __init__(self, root, *flags, port=0):
        program = os.path.join(os.environ['BUILD'], 'bench/bucket')
        if not os.access(program, os.X_OK):
            skip('bench/bucket is not built')
        os.makedirs(os.path.join(root, 'b'), exist_ok=True)
        self.root = root
        self.process = subprocess.Popen([program, *flags, '--port', str(port), root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line.strip().isdigit():
            fail(f'bench/bucket said {line!r}')
        self.port = int(line)
        self.env = {'GRID_STORE': 's3://b/grid', 'AWS_ENDPOINT_URL': f'http://127.0.0.1:{self.port}', 'AWS_ACCESS_KEY_ID': 'test',
                    'AWS_SECRET_ACCESS_KEY': 'test', 'AWS_REGION': 'us-east-1'}

    def stop(self):
        if not self.process:
            return None
        out, _ = self.process.communicate('')
        self.process = None
        return json.loads(out.splitlines()[-1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
