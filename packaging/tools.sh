#!/usr/bin/env bash
# Installs what builds and checks packages into target/packages/tools, at the versions of
# constraints.txt, and prints the folder of the programs. `--update` installs the newest versions,
# and writes them into constraints.txt. PYTHON=/a/python is the interpreter (3.11 or newer).
set -euo pipefail
cd "$(dirname "$0")/.."
# A release is built in a clone whose target folder is a link.
env=$(realpath -m target/packages/tools)
list=packaging/constraints.txt
TOOLS=(maturin ziglang twine check-wheel-contents auditwheel trove-classifiers)

interpreter() {
    local python
    for python in ${PYTHON:-} "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[1-9]*/bin/python python3; do
        if "$python" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    echo "no Python 3.11 or newer with the module venv: name one, PYTHON=/a/python" >&2
    return 1
}

update=
[ "${1:-}" != --update ] || update=1
stamp=$env/installed.txt
# What is installed, and where: the programs name the folder, and fail in another one.
installed() {
    cat "$list"
    echo "$env"
}
if [ -n "$update" ] || ! installed | cmp -s - "$stamp"; then
    python=$(interpreter)
    rm -rf "$env"
    "$python" -m venv "$env"
    if [ -n "$update" ]; then
        "$env/bin/pip" install --quiet --disable-pip-version-check --upgrade "${TOOLS[@]}"
        {
            echo "# The packaging tools, and all that they need, at the versions that were tested; written by"
            echo "# \`packaging/tools.sh --update\`."
            "$env/bin/pip" freeze
        } >"$list"
    else
        "$env/bin/pip" install --quiet --disable-pip-version-check --constraint "$list" "${TOOLS[@]}"
    fi
    installed >"$stamp"
fi
echo "$env/bin"
