# SPDX-License-Identifier: Apache-2.0
"""The directory store on one machine: create, list, mount, read."""
import json, os, random, re, shutil, subprocess, sys, time

from .common import GRID, READ_FILES, Run, env_for, file_big, fresh, header, median, report, settle, synthetic, tree_small, warm


def create_small(opt):
    header('create from 50,000 files of 2-40 KB, page cache warm, store on the same disk')
    tree = tree_small(opt)
    env, base = env_for(opt, 'small')
    tar, blob = os.path.join(opt.dir, 'tree.tar'), os.path.join(opt.dir, 'blob')
    warm(tree)
    wall, cpu, tar_wall, hash_cpu, mkfs = [], [], [], [], []
    for _ in range(opt.rounds):
        if os.path.exists(tar):
            os.unlink(tar)
        settle()
        tar_wall.append(Run(f'tar -cf {tar} -C {tree} . && sync {tar}', shell=True).wall)
        os.unlink(tar)
        hash_cpu.append(Run(f'tar -cf - -C {tree} . | openssl dgst -sha256', shell=True).cpu)
        fresh(base)
        settle()
        r = Run([GRID, 'datastore', 'create', tree, '--name', 'small'], env)
        wall.append(r.wall)
        cpu.append(r.cpu)
    if not opt.quick and shutil.which('mkfs.erofs'):
        settle()
        # One run: it takes half a minute, and the bar is a factor of four.
        mkfs.append(Run(f'mkfs.erofs --chunksize=4096 --blobdev={blob} {blob}.index {tree} && sync {blob} {blob}.index', shell=True).wall)
        os.unlink(blob)
        os.unlink(blob + '.index')
    report('create-small', 'wall: create / (tar -cf FILE && sync FILE)', median(wall) / median(tar_wall), 'x', 1.15,
           note=f'{median(wall):.2f} s / {median(tar_wall):.2f} s')
    report('create-small', 'cpu: create / (tar | openssl dgst -sha256)', median(cpu) / median(hash_cpu), 'x', 1.5,
           note=f'{median(cpu):.2f} s / {median(hash_cpu):.2f} s')
    if mkfs:
        report('create-small', 'wall: mkfs.erofs --blobdev / create', median(mkfs) / median(wall), 'x', 4, 'higher', f'{median(mkfs):.1f} s')
    used = int(subprocess.check_output(['du', '-sb', '--apparent-size', base + '/store'], text=True).split()[0])
    files = sum(os.path.getsize(os.path.join(t, n)) for t, _, ns in os.walk(tree) for n in ns)
    report('create-small', "store's bytes / the files' bytes", used / files, 'x', 1.03)


def create_again(opt):
    header('create again, nothing changed; then 1 % of the files changed')
    tree = tree_small(opt)
    env, base = env_for(opt, 'again')
    fresh(base)
    time.sleep(1.1)
    Run([GRID, 'datastore', 'create', tree, '--name', 'again'], env)
    again, find = [], []
    for _ in range(opt.rounds):
        find.append(Run(f"find {tree} -printf '%s %T@\\n' >/dev/null", shell=True).wall)
        again.append(Run([GRID, 'datastore', 'create', tree, '--name', 'again'], env).wall)
    report('create-again', 'wall: create, nothing changed / find -printf', median(again) / median(find), 'x', 2,
           note=f'{median(again) * 1000:.0f} ms / {median(find) * 1000:.0f} ms')
    opened = Run(f'strace -f -qq -e trace=openat,openat2 -o {base}/trace {GRID} datastore create {tree} --name again; grep -c "image[0-9]*.jpg" {base}/trace || true',
                 dict(env), shell=True).out
    report('create-again', 'files opened by it', float(opened.split()[-1]), 'files', 0)

    copy = os.path.join(opt.dir, 'tree-changed')
    shutil.rmtree(copy, ignore_errors=True)
    subprocess.run(['cp', '-a', '--reflink=auto', tree, copy], check=True)
    env2, base2 = env_for(opt, 'changed')
    fresh(base2)
    time.sleep(1.1)
    Run([GRID, 'datastore', 'create', copy, '--name', 'changed'], env2)
    rnd, changed = random.Random(3), 0
    for top, _, names in os.walk(copy):
        for n in names:
            if rnd.random() < 0.01:
                p = os.path.join(top, n)
                data = rnd.randbytes(os.path.getsize(p))
                with open(p, 'wb') as f:
                    f.write(data)
                changed += len(data)
    size = lambda: int(subprocess.check_output(['du', '-sb', '--apparent-size', base2 + '/store'], text=True).split()[0])
    index = json.loads(Run([GRID, 'datastore', 'show', 'changed', '--json'], env2).out).get('index_bytes', 0)
    before = size()
    Run([GRID, 'datastore', 'create', copy, '--name', 'changed'], env2)
    report('create-again', 'bytes stored for 1 % changed / (1.3 x changed + index)', (size() - before) / (1.3 * changed + index), 'x', 1,
           note=f'{(size() - before) / 1e6:.1f} MB stored, {changed / 1e6:.1f} MB changed, index {index / 1e6:.1f} MB')
    shutil.rmtree(copy)


def create_big(opt):
    header('create from one 4-GB file')
    big = file_big(opt)
    env, base = env_for(opt, 'big')
    copy = os.path.join(opt.dir, 'big.copy')
    Run(f'cat {big} >/dev/null', shell=True)
    wall, cpu, dd, hash_cpu = [], [], [], []
    for _ in range(opt.rounds):
        settle()
        dd.append(Run(f'dd if={big} of={copy} bs=1M conv=fsync status=none', shell=True).wall)
        os.unlink(copy)
        hash_cpu.append(Run(['openssl', 'dgst', '-sha256', big]).cpu)
        fresh(base)
        settle()
        r = Run([GRID, 'datastore', 'create', big, '--name', 'big'], env)
        wall.append(r.wall)
        cpu.append(r.cpu)
    report('create-big', 'wall: create / dd conv=fsync', median(wall) / median(dd), 'x', 1.1, note=f'{median(wall):.2f} s / {median(dd):.2f} s')
    report('create-big', 'cpu: create / openssl dgst -sha256', median(cpu) / median(hash_cpu), 'x', 1.5, note=f'{median(cpu):.2f} s / {median(hash_cpu):.2f} s')
    shutil.rmtree(base)


def many_files(opt):
    header('millions of tiny files in directories of 1,000 (generated)')
    for files in [100_000] if opt.quick else [1_000_000, 10_000_000]:
        base = fresh(os.path.join(opt.dir, 'many'))
        r = synthetic(opt, base + '/store', 'many', files, 1000, 1, 64, cache=base + '/cache')
        report('many-files', f'{files:,} files: peak memory / (256 MiB + 64 B a file)',
               r['peak_rss_kib'] * 1024 / ((256 << 20) + 64 * files), 'x', 1, note=f"{r['peak_rss_kib'] / 1024:.0f} MiB, cpu {r['cpu_s']} s")
        names = 12  # "f" and the number: what source_synthetic makes of them
        report('many-files', f'{files:,} files: index bytes a file beyond the names', r['index_bytes'] / files - names, 'B', 130)
        shutil.rmtree(base)


def versions(opt):
    header('100 versions, 1 % of the files changed at random in each')
    base = fresh(os.path.join(opt.dir, 'versions'))
    files, count = (2000, 20) if opt.quick else (50000, 100)
    for n in range(count):
        r = synthetic(opt, base + '/store', 'v', files, 500, 2000, 40000, n, 1, cache=base + '/cache')
    env = dict(os.environ, GRID_STORE='file://' + base + '/store', GRID_CACHE=base + '/cache')
    last = json.loads(Run([GRID, 'datastore', 'show', 'v', '--json'], env).out)
    fresh_base = fresh(os.path.join(opt.dir, 'versions-fresh'))
    f = synthetic(opt, fresh_base + '/store', 'v', files, 500, 2000, 40000, count - 1, 1)
    report('versions', 'packs of the last / of a fresh publish', len(last['packs']) / f['packs_written'], 'x', 2)
    used = int(subprocess.check_output(['du', '-sb', '--apparent-size', base + '/store'], text=True).split()[0])
    live = last['size_bytes'] * (1 + 0.01 * (count - 1))  # 1 % of new content with each version, all versions are there
    report('versions', "store's bytes / live bytes (contents that any version has)", used / live, 'x', 3,
           note=f"{used / 1e9:.2f} GB; {used / last['size_bytes']:.2f} x the last version's bytes")
    kept = sum(p['length_bytes'] for p in last['packs'])
    report('versions', "packs of the last version / its bytes (if all others went)", kept / last['size_bytes'], 'x', 3)
    shutil.rmtree(base)
    shutil.rmtree(fresh_base)


def listing(opt):
    header('listing of 100 names x 100 versions')
    base = fresh(os.path.join(opt.dir, 'listing'))
    names, count = (10, 10) if opt.quick else (100, 100)
    # Made in memory (10,000 durable publishes take minutes), then copied to the disk.
    memory = fresh(f'/dev/shm/grid-bench-{os.getpid()}')
    for i in range(names):
        for n in range(count):
            synthetic(opt, memory + '/store', f'name{i:03}', 1, 1, 1, 1)
    subprocess.run(['cp', '-a', memory + '/store', base + '/store'], check=True)
    shutil.rmtree(memory)
    env = dict(os.environ, GRID_STORE='file://' + base + '/store', GRID_CACHE=base + '/cache')
    times = [Run([GRID, 'datastore', '--global', '--json'], env) for _ in range(opt.rounds)]
    if len(json.loads(times[0].out)) != names * count:
        sys.exit('the listing is not complete')
    report('listing', f'{names} x {count} versions', median([t.wall for t in times]), 's', 0.3)
    shutil.rmtree(base)


def mounting(opt):
    header('mount -> first ls of the root')
    medians = []
    for files in [1000, 20_000 if opt.quick else 1_000_000]:
        base = fresh(os.path.join(opt.dir, 'mounting'))
        env = dict(os.environ, GRID_STORE='file://' + base + '/store', GRID_CACHE=base + '/cache', GRID_RUNTIME_DIR=base + '/run')
        synthetic(opt, base + '/store', 'm', files, 1000, 1, 64)
        mnt = fresh(base + '/mnt')
        times = []
        for _ in range(opt.rounds):
            times.append(Run(f'{GRID} datastore mount m {mnt} && ls {mnt}', env, shell=True).wall)
            Run([GRID, 'datastore', 'unmount', mnt], env)
        medians.append(median(times))
        report('mounting', f'{files:,} files', median(times) * 1000, 'ms', 100)
        shutil.rmtree(base)
    report('mounting', 'difference', abs(medians[1] - medians[0]) * 1000, 'ms', 20)


def warm_reads(opt):
    header('page-cache-warm open+read+close of the 50,000 files, random order')
    tree = tree_small(opt)
    env, base = env_for(opt, 'warm')
    fresh(base)
    Run([GRID, 'datastore', 'create', tree, '--name', 'warm'], env)
    mnt = fresh(base + '/mnt')
    Run([GRID, 'datastore', 'mount', 'warm', mnt], env)
    paths = '\n'.join(os.path.relpath(os.path.join(t, n), tree) for t, _, ns in sorted(os.walk(tree)) for n in sorted(ns)) + '\n'
    def us(directory, *flags):
        p = subprocess.run([READ_FILES, *flags, directory], input=paths, stdout=subprocess.PIPE, text=True, check=True)
        return [float(x) for x in re.findall(r'([\d.]+) us/file', p.stdout)]
    try:
        cold_cache = us(mnt)[0]
        us(tree)
        ours, ext4, ours_stat, ext4_stat = [], [], [], []
        for _ in range(opt.rounds):
            ours += us(mnt)
            ext4 += us(tree)
            ours_stat += us(mnt, '-s')
            ext4_stat += us(tree, '-s')
    finally:
        Run([GRID, 'datastore', 'unmount', mnt], env)
    report('warm-reads', 'fuse / ext4, open+read+close', median(ours) / median(ext4), 'x', 1.5, note=f'{median(ours):.1f} us / {median(ext4):.1f} us a file')
    report('warm-reads', 'fuse / ext4, stat', median(ours_stat) / median(ext4_stat), 'x', note=f'{median(ours_stat):.1f} us / {median(ext4_stat):.1f} us a file')
    report('warm-reads', 'fuse, first pass (store in the page cache)', cold_cache, 'us')
    shutil.rmtree(base)


SCENARIOS = dict(create_small=create_small, create_again=create_again, create_big=create_big, many_files=many_files,
                 versions=versions, listing=listing, mounting=mounting, warm_reads=warm_reads)
