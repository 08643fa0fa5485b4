#!/bin/sh
# Make or update .venv with the versions that constraints.txt pins; `make` runs this before every target. A current
# environment stays unchanged, one from older files is updated, an interrupted or moved one is made again.
set -eu
cd "$(dirname "$0")/.."
stamp=.venv/setup.stamp log=.venv.log

fail() { echo "error: $*" >&2; exit 1; }

for python in ${PYTHON:-python3.11 python3.12 python3.13 python3 python}; do  # constraints.txt was tested with 3.11
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && break
    python=
done
[ "$python" ] || fail "no Python 3.11 or newer (tried ${PYTHON:-the PATH}): install one, or name it: make PYTHON=/path/to/python"

exec 9>.venv.lock
if command -v flock >/dev/null && ! flock -n 9; then
    echo "another set-up of .venv is running: waiting for it"
    flock 9
fi
place="$("$python" -c 'import sys; print(sys.version.split()[0], sys.base_prefix)') $PWD"
wanted="$place $(cat setup.py pyproject.toml constraints.txt "scripts/${0##*/}" | cksum)"
found=$(cat $stamp 2>/dev/null || true)
[ "$found" != "$wanted" ] || exit 0
[ -z "$(ls -A .venv 2>/dev/null)" ] || [ -e $stamp ] || fail ".venv was not made by this set-up: move it away, then run the command again"

header=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include") + "/Python.h")')
[ -e "$header" ] || fail "$header is missing: install Python's headers (Debian, Ubuntu: python3-dev)"
compiler=${CXX:-c++}
command -v "${compiler%% *}" >/dev/null || fail "no C++ compiler ($compiler): install one (Debian, Ubuntu: g++)"

step() {  # TITLE COMMAND...
    echo "  $1"
    title=$1 && shift
    "$@" >>$log 2>&1 </dev/null && return
    code=$?  # a pip that fails by itself leaves the environment consistent; a killed one may not
    [ $code -ge 128 ] || [ ! -x .venv/bin/pip ] || echo "$place failed" >$stamp
    tail -n 5 $log >&2
    fail "set-up stopped at '$title' (exit code $code): see $log, then run the command again"
}

echo "set-up of .venv, some minutes (details in $log)"
: >$log
mkdir -p .venv
echo unfinished >$stamp
unset PYTHONPATH PYTHONHOME CUDA_HOME PIP_CONSTRAINT PIP_TARGET PIP_PREFIX PIP_USER  # they mislead pip and fairseq's build
export CPPFLAGS="${CPPFLAGS:-} -g0"  # without debug information, fairseq compiles in 60 % of the time
if [ "${found#"$place "}" = "$found" ]; then
    find .venv -mindepth 1 -maxdepth 1 ! -name setup.stamp -exec rm -rf {} +
    step "virtual environment" "$python" -m venv .venv
fi
pip="env .venv/bin/python -m pip install --progress-bar off --no-compile -c constraints.txt"
cache=$(.venv/bin/python -m pip cache dir)  # pip cannot build fairseq with a cache that it cannot write to
{ mkdir -p "$cache/wheels" && rmdir "$(mktemp -d "$cache/wheels/XXXXXX")"; } 2>/dev/null || export PIP_NO_CACHE_DIR=1
# first what fairseq's build imports: without build isolation, fairseq is compiled with the torch that it runs with
step "torch and build tools" $pip setuptools cython numpy torch
step "fairseq (compiles for minutes) and all else" $pip --no-build-isolation -e ".[all]"
echo "$wanted" >$stamp
