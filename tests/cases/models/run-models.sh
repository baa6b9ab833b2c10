#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The catalogue's protocol, searched exhaustively: it holds, and no rule of it can be left out.
# timeout: 600
set -eu
if [ "${SOAK:-}" = 1 ]; then
    exec "$TOP/models/run" --full
fi
exec "$TOP/models/run"
