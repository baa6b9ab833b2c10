#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draws bench/results/latest.json: every figure that has a bar, as how much better or worse than the bar it is.

  bench/plot.py [JSON [DIRECTORY]]

One SVG for each group of scenarios, next to the JSON. Nothing but Python's own library is needed."""
import html, json, math, os, sys

GROUPS = {
    'local': ('One machine, directory store', ['create-small', 'create-big', 'again', 'change', 'many', 'versions', 'listing', 'first-ls', 'mount', 'warm-reads']),
    'modes': ('Mounts beside ext4, rclone and s3fs', ['modes']),
    'far': ('Buckets, 20 ms a request', ['far-', 'ceph-']),
}
ROW, LEFT, PLOT, RIGHT, TOP, FOOT = 22, 430, 360, 190, 62, 46
DECADES = 1.4  # each side of the bar
INK, SOFT, LINE, GOOD, BAD = '#1f2328', '#656d76', '#d0d7de', '#1a7f4b', '#c2410c'


def better(r):
    """> 1: better than the bar by that factor."""
    value, bar = max(r['value'], 1e-9), max(r['bar'], 1e-9)
    return value / bar if higher(r) else bar / value


def higher(r):
    # The JSON says whether the bar was met; which way it goes follows from that.
    return r['met'] == (r['value'] >= r['bar']) and r['value'] != r['bar']


def shown(x):
    return f'{x:,.0f}' if abs(x) >= 100 else f'{x:.3g}'


def text(x, y, words, size=12, color=INK, anchor='start', weight='normal'):
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{color}" text-anchor="{anchor}" font-weight="{weight}">{html.escape(words)}</text>'


def mark(x, y, met):
    """A filled circle, or a cross: told apart without colour."""
    if met:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{GOOD}"/>'
    return f'<path d="M{x - 4:.1f} {y - 4:.1f}L{x + 4:.1f} {y + 4:.1f}M{x - 4:.1f} {y + 4:.1f}L{x + 4:.1f} {y - 4:.1f}" stroke="{BAD}" stroke-width="2.5" stroke-linecap="round"/>'


def shorten(words, most):
    return words if len(words) <= most else words[:most - 1] + '…'


def label(r):
    named = r['scenario'] if not r['scenario'].startswith('far-') else r['scenario'][4:]
    return r['what'] if named == 'modes' else f'{named.replace("-", " ")}: {r["what"]}'


def machines(rows, about):
    return ' and '.join(sorted({r.get('cpu', about['cpu']) for r in rows}))


def draw(title, rows, about):
    width, height = LEFT + PLOT + RIGHT, TOP + ROW * len(rows) + FOOT
    middle, unit = LEFT + PLOT / 2, PLOT / 2 / DECADES
    missed = sum(not r['met'] for r in rows)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="system-ui, Segoe UI, Helvetica, Arial, sans-serif" role="img" '
           f'aria-label="{html.escape(title)}: {len(rows) - missed} of {len(rows)} bars met">',
           f'<rect width="{width}" height="{height}" fill="#ffffff"/>', text(20, 26, title, 16, weight='600'),
           text(20, 45, f'{len(rows) - missed} of {len(rows)} bars met; each figure against its bar, factors, logarithmic', 11.5, SOFT)]
    bottom = TOP + ROW * len(rows)
    for factor in (0.1, 0.3, 1, 3, 10):
        x = middle + math.log10(factor) * unit
        out.append(f'<line x1="{x:.1f}" y1="{TOP - 4}" x2="{x:.1f}" y2="{bottom}" stroke="{INK if factor == 1 else LINE}" stroke-width="{1.2 if factor == 1 else 1}"/>')
        out.append(text(x, bottom + 14, 'bar' if factor == 1 else f'{round(1 / factor)}× worse' if factor < 1 else f'{factor}× better', 9.5, SOFT, 'middle'))
    for i, r in enumerate(rows):
        y, factor = TOP + ROW * i + ROW / 2, better(r)
        x = middle + max(-DECADES, min(DECADES, math.log10(factor))) * unit
        color = GOOD if r['met'] else BAD
        out.append(text(LEFT - 14, y + 4, shorten(label(r), 68), 11.5, anchor='end'))
        out.append(f'<line x1="{middle:.1f}" y1="{y:.1f}" x2="{x:.1f}" y2="{y:.1f}" stroke="{color}" stroke-width="3" stroke-opacity="0.35"/>')
        out.append(mark(x, y, r['met']))
        sign = '≥' if higher(r) else '≤'
        out.append(text(LEFT + PLOT + 16, y + 4, f'{shown(r["value"])} {r["unit"]}'.strip(), 11.5, color, weight='600'))
        out.append(text(width - 20, y + 4, f'{sign} {shown(r["bar"])}', 11.5, SOFT, 'end'))
    out.append(text(20, height - 10, f'{machines(rows, about)}, {about["cpus"]} CPUs, {about["memory_gib"]} GiB, Linux {about["kernel"]}, {about["grid"]}; ● met, ✕ missed; repeat with bench/run', 10, SOFT))
    return '\n'.join(out + ['</svg>', ''])


def plot(source, directory):
    with open(source) as f:
        document = json.load(f)
    rows = [r for r in document['figures'] if r['bar'] is not None]
    for name, (title, scenarios) in GROUPS.items():
        mine = [r for r in rows if any(r['scenario'] == s or s.endswith('-') and r['scenario'].startswith(s) for s in scenarios)] if name != 'local' else \
               [r for r in rows if r['scenario'] != 'modes' and not r['scenario'].startswith(('far-', 'ceph-'))]
        if mine:
            with open(os.path.join(directory, name + '.svg'), 'w') as f:
                f.write(draw(title, mine, document['machine']))


if __name__ == '__main__':
    here = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'results')
    source = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, 'latest.json')
    plot(source, sys.argv[2] if len(sys.argv) > 2 else os.path.dirname(os.path.abspath(source)))
