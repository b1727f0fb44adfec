#!/usr/bin/env bash
# The environment of the other scripts: makes .venv if there is none and installs the project into it.
#   scripts/setup.sh [EXTRA...]     extras of pyproject.toml, such as dev
# PYTHON       the interpreter (3.10 or newer)
# TORCH        a version of torch, such as 2.15.0
# TORCHTITAN   a version of torchtitan: 0.2.2 or 0.3.0
# VENV         the folder of the environment, in place of .venv
# Left to itself on Linux without a GPU, it takes the newest CPU build of torch that pip is offered, if any:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu scripts/setup.sh
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${VENV:-.venv}
python=$venv/bin/python
extras=$(IFS=,; echo "$*")

# The CPU build of torch that pip would find, of version TORCH if that is set; empty: none.
cpu_build() {
    "$python" -m pip index versions torch 2> /dev/null | sed -n 's/^Available versions: //p' | tr -d ' ' |
        tr ',' '\n' | grep -E "^${TORCH:-2\.1[2-5]\.[0-9]+}\+cpu$" | head -n 1 || true
}

# The requirements that decide between builds and versions, one a line.
choose() {
    local torch=${TORCH:-} build=
    if "$python" -c "import torch" 2> /dev/null && [ -z "$torch" ]; then
        torch=$("$python" -c "import torch; print(torch.__version__)")
        echo "torch $torch is installed already" >&2
    elif [ "$(uname)" = Linux ] && ! nvidia-smi -L > /dev/null 2>&1; then
        build=$(cpu_build)
        echo "no GPU: ${build:-the default build} of torch$([ -n "$build" ] || echo ", several GB: pip is offered no CPU build")" >&2
        torch=${build:-$torch}
    fi
    [ -z "$torch" ] || echo "torch==$torch"
    case "${TORCHTITAN:-}:$torch" in
        :2.12.* | :2.13.*) echo "torchtitan<0.3" ;;  # 0.3 needs torch 2.14
        :*) ;;
        *) echo "torchtitan==$TORCHTITAN" ;;
    esac
}

if [ ! -x "$python" ]; then
    "${PYTHON:-python3}" -m venv "$venv"
fi
stamp="$venv/.installed-${extras:-none}${TORCH:+-torch-$TORCH}${TORCHTITAN:+-torchtitan-$TORCHTITAN}"
if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
    mapfile -t chosen < <(choose)
    echo "installing into $venv${chosen[*]:+: ${chosen[*]}} (log: $venv/install.log)"
    "$python" -m pip install --editable ".${extras:+[$extras]}" "${chosen[@]}" > "$venv/install.log" 2>&1 ||
        { tail -n 20 "$venv/install.log"; exit 1; }
    touch "$stamp"
fi
